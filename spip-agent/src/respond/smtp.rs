//! SMTP, as Postfix speaks it: any login is let in, every envelope is taken, and the message itself is refused when all
//! of it was heard. Nothing is ever delivered or relayed.

use super::lines::{command, line, may_end};
use super::{Dialogue, Reply, Scene, Service};

pub(super) static SERVICE: Service =
    Service { protocols: &["smtp"], speaks_first: true, begin: || Box::new(Smtp::Commands) };

/// Meaning of the next line.
enum Smtp {
    Commands,
    /// The message of SASL PLAIN.
    Plain,
    /// The name of SASL LOGIN.
    LoginUser,
    /// The password of SASL LOGIN.
    LoginSecret,
    /// A line of the message.
    Message,
}

impl Dialogue for Smtp {
    fn greet(&mut self, scene: &Scene<'_>, reply: &mut Reply<'_>) {
        reply.line("smtp_greeting", &format!("220 {} {}", scene.face.host, scene.face.smtp));
    }

    fn is_worth_hearing(&mut self, heard: &[u8], looked: usize) -> bool {
        may_end(heard, looked)
    }

    fn hear(&mut self, heard: &[u8], scene: &Scene<'_>, reply: &mut Reply<'_>) -> usize {
        let Some((text, used)) = line(heard) else { return 0 };
        match self {
            Self::Commands => self.command(text, scene, reply),
            Self::LoginUser => {
                *self = Self::LoginSecret;
                reply.line("smtp_login", "334 UGFzc3dvcmQ6");
            }
            Self::Plain | Self::LoginSecret if text == b"*" => {
                *self = Self::Commands;
                reply.line("smtp_refusal", "501 5.7.0 Authentication aborted");
            }
            Self::Plain | Self::LoginSecret => self.let_in(reply),
            Self::Message => {
                if text == b"." {
                    *self = Self::Commands;
                    reply.refuse("smtp_refusal", "451 4.3.0 Error: queue file write error");
                }
            }
        }
        used
    }
}

impl Smtp {
    fn let_in(&mut self, reply: &mut Reply<'_>) {
        *self = Self::Commands;
        reply.line("smtp_login", "235 2.7.0 Authentication successful");
    }

    fn command(&mut self, text: &[u8], scene: &Scene<'_>, reply: &mut Reply<'_>) {
        let host = &scene.face.host;
        let (verb, arguments) = command(text);
        match verb.as_slice() {
            b"HELO" => {
                reply.understood();
                reply.line("smtp_answer", &format!("250 {host}"));
            }
            b"EHLO" | b"LHLO" => {
                reply.understood();
                let tls = if scene.offers_tls { "250-STARTTLS\r\n" } else { "" };
                reply.line(
                    "smtp_answer",
                    &format!(
                        "250-{host}\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-ETRN\r\n{tls}250-AUTH PLAIN LOGIN\r\n\
                         250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250 DSN"
                    ),
                );
            }
            b"AUTH" => self.authenticate(arguments, reply),
            b"MAIL" => reply.line("smtp_answer", "250 2.1.0 Ok"),
            b"RCPT" => reply.line("smtp_answer", "250 2.1.5 Ok"),
            b"DATA" => {
                *self = Self::Message;
                reply.line("smtp_answer", "354 End data with <CR><LF>.<CR><LF>");
            }
            b"STARTTLS" if scene.offers_tls && arguments.is_empty() => {
                reply.understood();
                reply.line("smtp_tls", "220 2.0.0 Ready to start TLS");
                reply.start_tls();
            }
            b"RSET" | b"NOOP" => reply.line("smtp_answer", "250 2.0.0 Ok"),
            b"QUIT" => {
                reply.understood();
                reply.line("smtp_farewell", "221 2.0.0 Bye");
                reply.close();
            }
            b"" => reply.refuse("smtp_refusal", "500 5.5.2 Error: bad syntax"),
            b"VRFY" => reply.refuse("smtp_refusal", "502 5.5.1 VRFY command is disabled"),
            b"STARTTLS" | b"EXPN" | b"HELP" => reply.refuse("smtp_refusal", "502 5.5.1 Error: command not implemented"),
            _ => reply.refuse("smtp_refusal", "502 5.5.2 Error: command not recognized"),
        }
    }

    fn authenticate(&mut self, arguments: &[u8], reply: &mut Reply<'_>) {
        reply.understood();
        let (mechanism, initial) = command(arguments);
        match (mechanism.as_slice(), initial.is_empty()) {
            (b"PLAIN", true) => {
                *self = Self::Plain;
                reply.line("smtp_login", "334 ");
            }
            (b"PLAIN", false) => self.let_in(reply),
            (b"LOGIN", true) => {
                *self = Self::LoginUser;
                reply.line("smtp_login", "334 VXNlcm5hbWU6");
            }
            (b"LOGIN", false) => {
                *self = Self::LoginSecret;
                reply.line("smtp_login", "334 UGFzc3dvcmQ6");
            }
            _ => {
                reply.refuse("smtp_refusal", "535 5.7.8 Error: authentication failed: Invalid authentication mechanism")
            }
        }
    }
}
