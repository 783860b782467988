//! Names and passwords in the body of a request: a form of HTML, or a JSON object, as sign-in pages and their attackers
//! send them.
//!
//! A body counts only where it has a field for a password; names of fields are those that products use. What a client
//! uploads otherwise is no login.

use super::credentials::Credentials;

/// The longest body that is read.
const BODY_BYTES: usize = 8 * 1024;
/// Fields that are looked at.
const FIELDS: usize = 64;

/// Names of fields for who signs in, without `_`, `-` and case.
const USERS: [&[u8]; 17] = [
    b"user",
    b"username",
    b"login",
    b"log",
    b"email",
    b"mail",
    b"uname",
    b"usr",
    b"userid",
    b"account",
    b"loginname",
    b"loginuser",
    b"juser",
    b"jusername",
    b"name",
    b"admin",
    b"luser",
];
/// Names of fields for the password.
const SECRETS: [&[u8]; 14] = [
    b"password",
    b"pass",
    b"passwd",
    b"pwd",
    b"passwort",
    b"psw",
    b"pw",
    b"secret",
    b"secretkey",
    b"userpass",
    b"loginpass",
    b"loginpassword",
    b"jpassword",
    b"userpassword",
];

/// Adds the login of a body, as `content_type` says how to read it.
pub(super) fn credentials(content_type: &[u8], body: &[u8], credentials: &mut Credentials) {
    let body = body.get(..BODY_BYTES).unwrap_or(body);
    let kind = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    match kind.as_slice() {
        b"application/x-www-form-urlencoded" => of_form(body, credentials),
        b"application/json" => of_json(body, credentials),
        _ => {}
    }
}

fn of_form(body: &[u8], credentials: &mut Credentials) {
    let (mut user, mut secret) = (None, None);
    for field in body.split(|byte| *byte == b'&').take(FIELDS) {
        let equals = field.iter().position(|byte| *byte == b'=').unwrap_or(field.len());
        let (name, value) = field.split_at_checked(equals).unwrap_or_default();
        let name = plain(&decode(name));
        let slot = if SECRETS.contains(&name.as_slice()) {
            &mut secret
        } else if USERS.contains(&name.as_slice()) {
            &mut user
        } else {
            continue;
        };
        slot.get_or_insert_with(|| decode(value.get(1..).unwrap_or_default()));
    }
    if let Some(secret) = secret {
        credentials.add(user.as_deref(), Some(&secret));
    }
}

fn of_json(body: &[u8], credentials: &mut Credentials) {
    let Ok(object) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(body) else { return };
    let (mut user, mut secret) = (None, None);
    for (name, value) in object.iter().take(FIELDS) {
        let Some(value) = value.as_str() else { continue };
        let name = plain(name.as_bytes());
        if SECRETS.contains(&name.as_slice()) {
            secret.get_or_insert(value);
        } else if USERS.contains(&name.as_slice()) {
            user.get_or_insert(value);
        }
    }
    if let Some(secret) = secret {
        credentials.add(user.map(str::as_bytes), Some(secret.as_bytes()));
    }
}

/// The name of a field without what products put between and around its words: `j_username`, `userName`,
/// `data[User][password]`.
fn plain(name: &[u8]) -> Vec<u8> {
    let name = name.strip_suffix(b"]").unwrap_or(name);
    let last = name.rsplit(|byte| matches!(byte, b'[' | b'.' | b':')).next().unwrap_or(name);
    last.iter().filter(|byte| !matches!(byte, b'_' | b'-')).map(u8::to_ascii_lowercase).collect()
}

/// Takes percent signs and pluses out.
fn decode(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut at = 0;
    while let Some(&byte) = value.get(at) {
        let digits = value.get(at + 1..at + 3).filter(|_| byte == b'%');
        let escaped = digits.and_then(|digits| {
            let mut escaped = [0];
            hex::decode_to_slice(digits, &mut escaped).ok().map(|()| escaped)
        });
        match escaped {
            Some([escaped]) => {
                out.push(escaped);
                at += 3;
            }
            None => {
                out.push(if byte == b'+' { b' ' } else { byte });
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::understand;

    fn login(content_type: &str, body: &str) -> Option<(Option<String>, Option<String>)> {
        let length = body.len();
        let request =
            format!("POST /login HTTP/1.1\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}");
        let mut list = understand(request.as_bytes(), false).credentials.list;
        assert!(list.len() <= 1, "{list:?}");
        list.pop().map(|found| (found.user, found.secret))
    }

    fn pair(user: &str, secret: &str) -> Option<(Option<String>, Option<String>)> {
        Some((Some(user.to_owned()), Some(secret.to_owned())))
    }

    #[test]
    fn a_form_shows_who_signs_in_with_what() {
        const FORM: &str = "application/x-www-form-urlencoded; charset=UTF-8";
        assert_eq!(login(FORM, "username=admin&password=s3cret"), pair("admin", "s3cret"));
        assert_eq!(login(FORM, "log=a%40b&pwd=p%26q+r&wp-submit=Log+In"), pair("a@b", "p&q r"));
        assert_eq!(login(FORM, "data[User][password]=x&j_username=y"), pair("y", "x"));
        assert_eq!(login(FORM, "password="), Some((None, Some(String::new()))));
        assert_eq!(login(FORM, "user=only"), None);
        assert_eq!(login(FORM, "q=%zz&pass=%4"), Some((None, Some("%4".to_owned()))));
    }

    #[test]
    fn a_json_object_shows_who_signs_in_with_what() {
        assert_eq!(login("application/json", r#"{"userName":"root","passWord":"1\u0032"}"#), pair("root", "12"));
        assert_eq!(login("application/json", r#"{"password":5}"#), None);
        assert_eq!(login("application/json", "{"), None);
        assert_eq!(login("text/plain", "username=a&password=b"), None);
    }

    #[test]
    fn a_digest_shows_the_user() {
        let request =
            b"GET / HTTP/1.1\r\nAuthorization: Digest username=\"cam-admin\", realm=\"x\", response=\"00\"\r\n\r\n";
        let list = understand(request, false).credentials.list;
        assert_eq!(list.first().and_then(|found| found.user.as_deref()), Some("cam-admin"));
    }

    #[test]
    fn of_two_fields_of_a_kind_the_first_one_counts() {
        const FORM: &str = "application/x-www-form-urlencoded";
        assert_eq!(login(FORM, "user=a&login=b&password=c&pass=d"), pair("a", "c"));
        assert_eq!(login("application/json", r#"{"user":"a","login":"b","password":"c","pass":"d"}"#), pair("b", "d"));
    }

    #[test]
    fn the_first_64_fields_are_examined() {
        let form = |before: usize| format!("{}password=x", "a=b&".repeat(before));
        const FORM: &str = "application/x-www-form-urlencoded";
        assert_eq!(login(FORM, &form(63)), Some((None, Some("x".to_owned()))));
        assert_eq!(login(FORM, &form(64)), None);
    }
}
