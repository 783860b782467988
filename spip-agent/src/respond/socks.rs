//! SOCKS 4 and 5 (RFC 1928, 1929): every login is let in, so that the client shows where it wants to go; the connection
//! is then refused. Nothing is resolved, and no connection is made.

use super::{Dialogue, Reply, Scene, Service};

pub(super) static SERVICE: Service =
    Service { protocols: &["socks"], speaks_first: false, begin: || Box::new(Socks::Greeting) };

/// Reply of version 5: connection refused.
const REFUSED: u8 = 5;
/// Reply of version 4: request rejected or failed.
const REJECTED: u8 = 91;
/// The longest request of version 4: fixed part, user and host with their zeros.
const REQUEST_BYTES: usize = 8 + 2 * 256;

enum Socks {
    Greeting,
    Login,
    Request,
}

impl Dialogue for Socks {
    fn hear(&mut self, heard: &[u8], _: &Scene<'_>, reply: &mut Reply<'_>) -> usize {
        match (&self, heard) {
            (Self::Greeting, [5, count, rest @ ..]) => {
                let Some(methods) = rest.get(..usize::from(*count)) else { return 0 };
                reply.understood();
                // A server that asks for a login is more credible, and the login is worth more than the request.
                *self = if methods.contains(&2) { Self::Login } else { Self::Request };
                let method = match self {
                    Self::Login => 2,
                    _ if methods.contains(&0) => 0,
                    _ => 0xff,
                };
                reply.say("socks_method", &[5, method]);
                if method == 0xff {
                    reply.close();
                }
                2 + methods.len()
            }
            (Self::Login, [1, user, rest @ ..]) => {
                let Some(secret) = rest.get(usize::from(*user)) else { return 0 };
                let length = 3 + usize::from(*user) + usize::from(*secret);
                if heard.len() < length {
                    return 0;
                }
                *self = Self::Request;
                reply.say("socks_login", &[1, 0]);
                length
            }
            (Self::Request, [5, _, _, kind, rest @ ..]) => {
                let address = match (kind, rest.first()) {
                    (1, _) => 4,
                    (3, Some(length)) => 1 + usize::from(*length),
                    (3, None) => return 0,
                    _ => 16,
                };
                if rest.len() < address + 2 {
                    return 0;
                }
                reply.say("socks_refusal", &[5, REFUSED, 0, 1, 0, 0, 0, 0, 0, 0]);
                reply.close();
                4 + address + 2
            }
            (Self::Greeting, [4, ..]) => {
                let Some(user) = heard.get(8..).and_then(|rest| rest.iter().position(|byte| *byte == 0)) else {
                    return wait(heard, reply);
                };
                let mut length = 8 + user + 1;
                // 4a: a host name follows an address in 0.0.0.0/24.
                if heard.get(4..7) == Some(&[0, 0, 0]) && heard.get(7) != Some(&0) {
                    match heard.get(length..).and_then(|rest| rest.iter().position(|byte| *byte == 0)) {
                        Some(host) => length += host + 1,
                        None => return wait(heard, reply),
                    }
                }
                reply.understood();
                reply.say("socks_refusal", &[0, REJECTED, 0, 0, 0, 0, 0, 0]);
                reply.close();
                length
            }
            (_, [] | [_]) => 0,
            (Self::Request, [5, ..]) if heard.len() < 4 => 0,
            _ => {
                reply.close();
                heard.len()
            }
        }
    }
}

/// Waits for the rest of a request of version 4, as long as it may be one.
fn wait(heard: &[u8], reply: &mut Reply<'_>) -> usize {
    if heard.len() >= REQUEST_BYTES {
        reply.close();
    }
    0
}

#[cfg(test)]
mod tests {
    use super::super::tests::Talk;

    fn said(pieces: &[&[u8]]) -> Vec<u8> {
        let mut talk = Talk::to(1080);
        for piece in pieces {
            talk.says(piece);
        }
        talk.server
    }

    #[test]
    fn a_client_shows_where_it_wants_to_go_and_is_refused() {
        let refused = [5, 5, 0, 1, 0, 0, 0, 0, 0, 0];
        let request = b"\x05\x01\x00\x03\x0cexample.test\x00\x50";
        assert_eq!(said(&[b"\x05\x01\x00", request]), [&[5, 0][..], &refused].concat());
        let login = b"\x01\x03bob\x05alice";
        assert_eq!(said(&[b"\x05\x02\x00\x02", login, request]), [&[5, 2, 1, 0][..], &refused].concat());
        assert_eq!(said(&[b"\x05\x01\x80"]), [5, 0xff]);
        assert_eq!(said(&[b"\x04\x01\x00\x50\xc0\x00\x02\x01bob\x00"]), [0, 91, 0, 0, 0, 0, 0, 0]);
        assert_eq!(said(&[b"\x04\x01\x00\x50\x00\x00\x00\x01\x00example.test\x00"]), [0, 91, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn pieces_of_a_byte_draw_out_the_same() {
        let whole = b"\x05\x02\x00\x02\x01\x03bob\x05alice\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50";
        let pieces: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(said(&pieces), [5, 2, 1, 0, 5, 5, 0, 1, 0, 0, 0, 0, 0, 0]);
    }
}
