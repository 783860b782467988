//! FTP, as vsftpd speaks it: any login is let in, and from the first command on that would move data it is refused.
//! No data connection is ever opened or accepted.

use super::lines::{command, line, may_end};
use super::{Dialogue, Reply, Scene, Service};

pub(super) static SERVICE: Service =
    Service { protocols: &["ftp"], speaks_first: true, begin: || Box::new(Ftp::default()) };

#[derive(Default)]
struct Ftp {
    has_user: bool,
    is_in: bool,
    /// Set when the control connection is inside TLS (RFC 4217).
    is_protected: bool,
}

impl Dialogue for Ftp {
    fn greet(&mut self, scene: &Scene<'_>, reply: &mut Reply<'_>) {
        reply.line("ftp_greeting", &format!("220 {}", scene.face.ftp));
    }

    fn is_in_tls(&mut self) {
        self.is_protected = true;
    }

    fn is_worth_hearing(&mut self, heard: &[u8], looked: usize) -> bool {
        may_end(heard, looked)
    }

    fn hear(&mut self, heard: &[u8], scene: &Scene<'_>, reply: &mut Reply<'_>) -> usize {
        let Some((text, used)) = line(heard) else { return 0 };
        let (verb, arguments) = command(text);
        match verb.as_slice() {
            b"USER" => {
                self.has_user = true;
                reply.understood();
                reply.line("ftp_login", "331 Please specify the password.");
            }
            b"PASS" if self.has_user => {
                self.is_in = true;
                reply.understood();
                reply.line("ftp_login", "230 Login successful.");
            }
            b"PASS" => reply.line("ftp_refusal", "503 Login with USER first."),
            b"QUIT" => {
                reply.understood();
                reply.line("ftp_farewell", "221 Goodbye.");
                reply.close();
            }
            b"FEAT" => {
                reply.understood();
                let tls = if scene.offers_tls { " AUTH TLS\r\n" } else { "" };
                reply.line("ftp_answer", &format!("211-Features:\r\n{tls} EPRT\r\n EPSV\r\n MDTM\r\n PASV\r\n REST STREAM\r\n SIZE\r\n TVFS\r\n UTF8\r\n211 End"));
            }
            b"AUTH"
                if scene.offers_tls
                    && matches!(arguments.to_ascii_uppercase().as_slice(), b"TLS" | b"TLS-C" | b"SSL") =>
            {
                reply.understood();
                reply.line("ftp_tls", "234 Proceed with negotiation.");
                reply.start_tls();
            }
            b"PBSZ" if self.is_protected => reply.line("ftp_answer", "200 PBSZ set to 0."),
            b"PROT" if self.is_protected => reply.line("ftp_answer", "200 PROT now Private."),
            b"OPTS" if arguments.to_ascii_uppercase().starts_with(b"UTF8") => {
                reply.line("ftp_answer", "200 Always in UTF8 mode.");
            }
            b"" => {}
            _ if !self.is_in => reply.refuse("ftp_refusal", "530 Please login with USER and PASS."),
            b"SYST" => reply.line("ftp_answer", "215 UNIX Type: L8"),
            b"PWD" | b"XPWD" => reply.line("ftp_answer", "257 \"/\" is the current directory"),
            b"NOOP" => reply.line("ftp_answer", "200 NOOP ok."),
            b"TYPE" if arguments.eq_ignore_ascii_case(b"A") => {
                reply.line("ftp_answer", "200 Switching to ASCII mode.");
            }
            b"TYPE" => reply.line("ftp_answer", "200 Switching to Binary mode."),
            b"CWD" | b"XCWD" => reply.refuse("ftp_refusal", "550 Failed to change directory."),
            b"SIZE" | b"MDTM" => reply.refuse("ftp_refusal", "550 Could not get file size."),
            b"PASV" | b"EPSV" | b"PORT" | b"EPRT" | b"LIST" | b"NLST" | b"MLSD" | b"RETR" | b"STOR" | b"STOU"
            | b"APPE" | b"DELE" | b"MKD" | b"XMKD" | b"RMD" | b"XRMD" | b"RNFR" | b"RNTO" | b"SITE" | b"CDUP"
            | b"REST" | b"STAT" => reply.refuse("ftp_refusal", "550 Permission denied."),
            _ => reply.refuse("ftp_refusal", "500 Unknown command."),
        }
        used
    }
}
