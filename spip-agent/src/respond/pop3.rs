//! POP3, as Dovecot speaks it: any login is let into an empty mailbox.

use super::lines::{command, line, may_end};
use super::{Dialogue, Reply, Scene, Service};

pub(super) static SERVICE: Service =
    Service { protocols: &["pop3"], speaks_first: true, begin: || Box::new(Pop3::default()) };

#[derive(Default)]
struct Pop3 {
    has_user: bool,
    is_in: bool,
    challenge: Option<Challenge>,
}

/// Challenge that the client's next line answers.
enum Challenge {
    User,
    Last,
}

impl Dialogue for Pop3 {
    fn greet(&mut self, scene: &Scene<'_>, reply: &mut Reply<'_>) {
        reply.line("pop3_greeting", &format!("+OK {}", scene.face.pop3));
    }

    fn is_worth_hearing(&mut self, heard: &[u8], looked: usize) -> bool {
        may_end(heard, looked)
    }

    fn hear(&mut self, heard: &[u8], scene: &Scene<'_>, reply: &mut Reply<'_>) -> usize {
        let Some((text, used)) = line(heard) else { return 0 };
        match self.challenge.take() {
            Some(_) if text == b"*" => reply.line("pop3_refusal", "-ERR Authentication aborted by client."),
            Some(Challenge::User) => {
                self.challenge = Some(Challenge::Last);
                reply.line("pop3_login", "+ UGFzc3dvcmQ6");
            }
            Some(Challenge::Last) => self.let_in(reply),
            None => self.command(text, scene, reply),
        }
        used
    }
}

impl Pop3 {
    fn let_in(&mut self, reply: &mut Reply<'_>) {
        self.is_in = true;
        reply.line("pop3_login", "+OK Logged in.");
    }

    fn command(&mut self, text: &[u8], scene: &Scene<'_>, reply: &mut Reply<'_>) {
        let (verb, arguments) = command(text);
        match verb.as_slice() {
            b"CAPA" => {
                reply.understood();
                let tls = if scene.offers_tls { "STLS\r\n" } else { "" };
                let list = format!(
                    "+OK\r\nCAPA\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nPIPELINING\r\nAUTH-RESP-CODE\r\nUSER\r\n\
                            {tls}SASL PLAIN LOGIN\r\n."
                );
                reply.line("pop3_answer", &list);
            }
            b"QUIT" => {
                reply.understood();
                reply.line("pop3_farewell", "+OK Logging out.");
                reply.close();
            }
            b"STLS" if scene.offers_tls && !self.is_in => {
                reply.understood();
                reply.line("pop3_tls", "+OK Begin TLS negotiation now.");
                reply.start_tls();
            }
            b"NOOP" => reply.line("pop3_answer", "+OK"),
            b"USER" if !self.is_in => {
                self.has_user = true;
                reply.understood();
                reply.line("pop3_login", "+OK");
            }
            b"PASS" if self.has_user && !self.is_in => {
                reply.understood();
                self.let_in(reply);
            }
            b"AUTH" if !self.is_in => self.authenticate(arguments, reply),
            b"STAT" if self.is_in => reply.line("pop3_answer", "+OK 0 0"),
            b"LIST" | b"UIDL" if self.is_in && arguments.is_empty() => {
                reply.line("pop3_answer", if verb == b"LIST" { "+OK 0 messages:\r\n." } else { "+OK\r\n." });
            }
            b"RSET" if self.is_in => reply.line("pop3_answer", "+OK"),
            b"LIST" | b"UIDL" | b"RETR" | b"TOP" | b"DELE" if self.is_in => {
                reply.refuse("pop3_refusal", "-ERR There's no such message.");
            }
            _ => reply.refuse("pop3_refusal", "-ERR Unknown command."),
        }
    }

    fn authenticate(&mut self, arguments: &[u8], reply: &mut Reply<'_>) {
        reply.understood();
        let (mechanism, initial) = command(arguments);
        match (mechanism.as_slice(), initial.is_empty()) {
            (b"", _) => reply.line("pop3_answer", "+OK\r\nPLAIN\r\nLOGIN\r\n."),
            (b"PLAIN", true) => {
                self.challenge = Some(Challenge::Last);
                reply.line("pop3_login", "+ ");
            }
            (b"PLAIN", false) => self.let_in(reply),
            (b"LOGIN", true) => {
                self.challenge = Some(Challenge::User);
                reply.line("pop3_login", "+ VXNlcm5hbWU6");
            }
            (b"LOGIN", false) => {
                self.challenge = Some(Challenge::Last);
                reply.line("pop3_login", "+ UGFzc3dvcmQ6");
            }
            _ => reply.refuse("pop3_refusal", "-ERR Unsupported authentication mechanism."),
        }
    }
}
