//! Credentials of SASL exchanges: names, and with PLAIN and LOGIN the passwords.

use base64::Engine as _;

use super::credentials::Credentials;
use super::http::BASE64;

/// A message of PLAIN (RFC 4616: authorisation, NUL, name, NUL, password) or the first of SCRAM (RFC 5802:
/// `n,,n=name,r=…`). Anything else is no login in clear.
pub(super) fn message(bytes: &[u8], credentials: &mut Credentials) {
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    if let (Some(_authorisation), Some(user), Some(secret)) = (parts.next(), parts.next(), parts.next()) {
        credentials.add(Some(user), Some(secret));
        return;
    }
    let mut fields = bytes.split(|byte| *byte == b',');
    if matches!(fields.next(), Some(b"n" | b"y" | b"p=tls-unique" | b"p=tls-exporter")) {
        // SCRAM writes `=2C` and `=3D` for a comma and an equals sign; names with them stay as sent.
        let user = fields.find_map(|field| field.strip_prefix(b"n="));
        credentials.add(user, None);
    }
}

/// A line of base64, as SMTP, POP3 and IMAP carry it; `None` where it is none.
pub(super) fn decode(line: &[u8]) -> Option<Vec<u8>> {
    let line = line.trim_ascii();
    if line.is_empty() { None } else { BASE64.decode(line).ok() }
}

/// The lines after `AUTH` or `AUTHENTICATE`: the mechanism, perhaps an initial response, then responses.
#[derive(Debug)]
pub(super) enum Exchange {
    /// The next line is a message of PLAIN.
    Plain,
    /// The next line is the name of a LOGIN.
    LoginUser,
    /// The next line is the password of this name.
    LoginSecret(Vec<u8>),
}

impl Exchange {
    /// Starts with the words behind the verb; `None` when the exchange is over, or tells nothing.
    pub(super) fn start(arguments: &[u8], credentials: &mut Credentials) -> Option<Self> {
        let mut words = arguments.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let mechanism = words.next()?;
        let exchange = if mechanism.eq_ignore_ascii_case(b"PLAIN") {
            Self::Plain
        } else if mechanism.eq_ignore_ascii_case(b"LOGIN") {
            Self::LoginUser
        } else {
            return None;
        };
        match words.next() {
            Some(initial) => exchange.line(initial, credentials),
            None => Some(exchange),
        }
    }

    /// Takes the client's next line; `None` when the exchange is over.
    pub(super) fn line(self, line: &[u8], credentials: &mut Credentials) -> Option<Self> {
        // `*` cancels (RFC 4954), and so does what is no base64.
        let decoded = decode(line);
        match (self, decoded) {
            (Self::Plain, Some(decoded)) => {
                message(&decoded, credentials);
                None
            }
            (Self::LoginUser, Some(user)) => Some(Self::LoginSecret(user)),
            (Self::LoginSecret(user), secret) => {
                credentials.add(Some(&user), secret.as_deref());
                None
            }
            (Self::Plain | Self::LoginUser, None) => None,
        }
    }

    /// Ends where the client's bytes end: a name without its password is still a name.
    pub(super) fn finish(self, credentials: &mut Credentials) {
        if let Self::LoginSecret(user) = self {
            credentials.add(Some(&user), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(arguments: &str, lines: &[&str]) -> Vec<(Option<String>, Option<String>)> {
        let mut credentials = Credentials::default();
        let mut exchange = Exchange::start(arguments.as_bytes(), &mut credentials);
        for line in lines {
            exchange = exchange.and_then(|exchange| exchange.line(line.as_bytes(), &mut credentials));
        }
        if let Some(exchange) = exchange {
            exchange.finish(&mut credentials);
        }
        credentials.list.into_iter().map(|credential| (credential.user, credential.secret)).collect()
    }

    #[test]
    fn plain_is_read_at_once_or_from_the_next_line() {
        let expected = vec![(Some("bob".to_owned()), Some("secret".to_owned()))];
        assert_eq!(exchange("PLAIN AGJvYgBzZWNyZXQ=", &[]), expected);
        assert_eq!(exchange("plain", &["AGJvYgBzZWNyZXQ="]), expected);
        assert_eq!(exchange("PLAIN", &["*"]), []);
    }

    #[test]
    fn login_is_read_line_by_line() {
        let expected = vec![(Some("bob".to_owned()), Some("secret".to_owned()))];
        assert_eq!(exchange("LOGIN", &["Ym9i", "c2VjcmV0"]), expected);
        assert_eq!(exchange("LOGIN Ym9i", &["c2VjcmV0"]), expected);
        assert_eq!(exchange("LOGIN Ym9i", &[]), [(Some("bob".to_owned()), None)]);
    }

    #[test]
    fn mechanisms_without_a_name_in_clear_give_nothing() {
        assert_eq!(exchange("CRAM-MD5", &["Ym9iIDAxMjM="]), []);
    }
}
