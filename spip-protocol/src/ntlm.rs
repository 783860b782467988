//! NTLM's last message ([MS-NLMP] 2.2.1.3): who the client says it is, and its answer to the challenge. Found wherever it stands
//! in a message, whatever wraps it.

use memchr::memmem;

use super::Understanding;

/// The beginning of the message, with its number.
const AUTHENTICATE: &[u8] = b"NTLMSSP\0\x03\0\0\0";
/// Says that names are UTF-16.
const UNICODE: u32 = 1;

/// Where the message has its fields: each a length, the length again, and an offset.
mod field {
    pub(super) const RESPONSE: usize = 20;
    pub(super) const DOMAIN: usize = 28;
    pub(super) const USER: usize = 36;
    pub(super) const WORKSTATION: usize = 44;
    pub(super) const FLAGS: usize = 60;
}

/// Takes the facts of a login from a message, if there is one.
pub(super) fn login(message: &[u8], out: &mut Understanding<'_>) {
    let Some(at) = memmem::find(message, AUTHENTICATE) else { return };
    let login = &message[at..];
    let is_unicode = le32(login, field::FLAGS).is_some_and(|flags| flags & UNICODE != 0);
    let mut user = None;
    for (key, at) in [("user", field::USER), ("domain", field::DOMAIN), ("workstation", field::WORKSTATION)] {
        let Some(bytes) = bytes(login, at).filter(|bytes| !bytes.is_empty()) else { continue };
        let text = if is_unicode { utf16(bytes).into_bytes() } else { bytes.to_vec() };
        out.details.text(key, &text);
        if key == "user" {
            user = Some(text);
        }
    }
    if let Some(response) = bytes(login, field::RESPONSE).filter(|response| !response.is_empty()) {
        out.details.hex("nt_response", response);
    }
    out.credentials.add(user.as_deref(), None);
}

fn bytes(login: &[u8], at: usize) -> Option<&[u8]> {
    let length = usize::from(u16::from_le_bytes(*login.get(at..)?.first_chunk()?));
    let offset = usize::try_from(le32(login, at + 4)?).ok()?;
    login.get(offset..)?.get(..length)
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Text of UTF-16 in the order of small machines; what is no character becomes the replacement character.
pub(super) fn utf16(bytes: &[u8]) -> String {
    let units = bytes.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit));
    char::decode_utf16(units).map(|character| character.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// A message of a client, for tests.
#[cfg(test)]
pub(super) fn sample(user: &str, domain: &str) -> Vec<u8> {
    let encode = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let mut message = AUTHENTICATE.to_vec();
    let mut behind = Vec::new();
    for value in [&[0; 24][..], &[0xab; 16], &encode(domain), &encode(user), &encode("WS"), &[]] {
        let length = u16::try_from(value.len()).expect("short").to_le_bytes();
        message.extend_from_slice(&length);
        message.extend_from_slice(&length);
        message.extend_from_slice(&u32::try_from(64 + behind.len()).expect("short").to_le_bytes());
        behind.extend_from_slice(value);
    }
    message.extend_from_slice(&UNICODE.to_le_bytes());
    message.extend(behind);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_shows_its_names_and_the_answer() {
        let mut out = Understanding::default();
        login(&[b"wrapped", sample("rööt", "CORP").as_slice()].concat(), &mut out);
        let details = serde_json::to_string(&out.details).expect("json");
        let expected =
            format!(r#"{{"user":"rööt","domain":"CORP","workstation":"WS","nt_response":"{}"}}"#, "ab".repeat(16));
        assert_eq!(details, expected);
        assert_eq!(out.credentials.list.first().and_then(|one| one.user.as_deref()), Some("rööt"));
    }

    #[test]
    fn a_login_that_is_cut_or_lies_about_its_fields_is_harmless() {
        let message = sample("root", "X");
        for end in 0..message.len() {
            login(&message[..end], &mut Understanding::default());
        }
        let mut lying = message;
        lying[field::USER..field::USER + 8].fill(0xff);
        let mut out = Understanding::default();
        login(&lying, &mut out);
        assert!(out.details.get("user").is_none() && out.details.get("domain").is_some());
    }
}
