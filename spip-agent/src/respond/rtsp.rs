//! RTSP (RFC 2326), as a camera speaks it: OPTIONS is answered, and everything else wants a login, so that a client that
//! tries passwords shows them. Of the request only its number comes back, which the protocol demands.

use super::lines::{LINE_BYTES, line};
use super::{Dialogue, Reply, Scene, Service};

pub(super) static SERVICE: Service = Service { protocols: &["rtsp"], speaks_first: false, begin: || Box::new(Rtsp) };

/// The longest head of a request.
const HEAD_BYTES: usize = 4 * LINE_BYTES;
/// The most digits of a request's number.
const CSEQ_DIGITS: usize = 10;

struct Rtsp;

impl Dialogue for Rtsp {
    fn is_worth_hearing(&mut self, heard: &[u8], looked: usize) -> bool {
        // An empty line may have begun among the bytes before.
        let unsearched = heard.get(looked.saturating_sub(3)..).unwrap_or_default();
        heard.len() >= HEAD_BYTES || unsearched.windows(2).any(|pair| pair == b"\n\n" || pair == b"\n\r")
    }

    fn hear(&mut self, heard: &[u8], _: &Scene<'_>, reply: &mut Reply<'_>) -> usize {
        let (mut used, mut cseq, mut method) = (0, None, None);
        loop {
            let Some((text, taken)) = line(heard.get(used..).unwrap_or_default()) else {
                if heard.len() >= HEAD_BYTES {
                    reply.close();
                }
                return 0;
            };
            used += taken;
            if text.is_empty() && method.is_some() {
                break;
            }
            if method.is_none() {
                method = text.split(|byte| *byte == b' ').next().filter(|word| !word.is_empty());
            } else if let Some(value) = header(text, b"cseq:") {
                let is_number = (1..=CSEQ_DIGITS).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
                cseq = is_number.then_some(value).or(cseq);
            }
        }
        reply.understood();
        let cseq = String::from_utf8_lossy(cseq.unwrap_or(b"1")).into_owned();
        if method == Some(b"OPTIONS") {
            let public = "OPTIONS, DESCRIBE, SETUP, TEARDOWN, PLAY, PAUSE";
            reply
                .say("rtsp_options", format!("RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\nPublic: {public}\r\n\r\n").as_bytes());
        } else {
            let login = "WWW-Authenticate: Basic realm=\"IP Camera\"";
            let text = format!("RTSP/1.0 401 Unauthorized\r\nCSeq: {cseq}\r\n{login}\r\n\r\n");
            reply.say("rtsp_login", text.as_bytes());
            reply.count_refusal();
        }
        used
    }
}

/// The value of a header line of that name.
fn header<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (own, value) = line.split_at_checked(name.len())?;
    own.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::super::tests::Talk;

    #[test]
    fn a_client_is_led_to_its_login() {
        let mut talk = Talk::to(554);
        let said = talk.says(b"OPTIONS rtsp://h/ RTSP/1.0\r\nCSeq: 1\r\n\r\n");
        assert!(said.starts_with("RTSP/1.0 200 OK\r\nCSeq: 1\r\nPublic: "), "{said}");
        let said = talk.says(b"DESCRIBE rtsp://h/ RTSP/1.0\r\nCSeq: 2\r\n\r\n");
        assert!(said.starts_with("RTSP/1.0 401 Unauthorized\r\nCSeq: 2\r\nWWW-Authenticate: Basic"), "{said}");
    }

    #[test]
    fn nothing_but_a_number_comes_back() {
        for cseq in ["1\u{1b}[0m", "99999999999", "x", ""] {
            let said = Talk::to(554).says(format!("OPTIONS rtsp://h/ RTSP/1.0\r\nCSeq: {cseq}\r\n\r\n").as_bytes());
            assert!(said.contains("\r\nCSeq: 1\r\n"), "{said}");
        }
    }
}
