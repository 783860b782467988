//! Replies to clients whose bytes come in pieces of any size, and bytes that are never sent.

use proptest::prelude::*;
use spip_protocol::{self as protocol, Protocol};
use spip_record::turn::LISTED;

use super::reply::REFUSALS;
use super::*;
use crate::respond::persona::tests::persona;

pub(super) fn responder() -> Responder {
    let ports =
        [(21, Greeting::Ftp), (22, Greeting::Ssh), (23, Greeting::Telnet), (25, Greeting::Smtp), (80, Greeting::Http)];
    let more = [(110, Greeting::Pop3), (143, Greeting::Imap), (3306, Greeting::Mysql), (5432, Greeting::Postgresql)];
    let rest = [(5900, Greeting::Vnc), (6379, Greeting::Redis), (9, Greeting::Off)];
    Responder {
        persona: persona(),
        ports: ports.into_iter().chain(more).chain(rest).collect(),
        banner_after: Duration::from_millis(1_500),
    }
}

/// One client against one conversation.
pub(super) struct Talk {
    responder: Responder,
    pub(super) conversation: Conversation,
    pub(super) client: Vec<u8>,
    pub(super) server: Vec<u8>,
    pub(super) offers_tls: bool,
}

impl Talk {
    pub(super) fn to(port: u16) -> Self {
        let conversation = Conversation::new(port, [7; 16]);
        Self { responder: responder(), conversation, client: Vec::new(), server: Vec::new(), offers_tls: false }
    }

    fn heard(&self) -> Heard<'_> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        Heard {
            kept: &self.client,
            received: self.client.len() as u64,
            elapsed: Duration::from_millis(5),
            now,
            offers_tls: self.offers_tls,
        }
    }

    pub(super) fn silence(&mut self) -> String {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let received = self.client.len() as u64;
        let heard = Heard {
            kept: &self.client,
            received,
            elapsed: Duration::from_millis(1_500),
            now,
            offers_tls: self.offers_tls,
        };
        self.conversation.silence(&self.responder, &heard);
        self.take()
    }

    pub(super) fn says(&mut self, bytes: &[u8]) -> String {
        self.client.extend_from_slice(bytes);
        let mut conversation = std::mem::replace(&mut self.conversation, Conversation::new(0, [0; 16]));
        conversation.hear(&self.responder, &self.heard());
        self.conversation = conversation;
        self.take()
    }

    fn take(&mut self) -> String {
        let said = self.conversation.pending().to_vec();
        self.conversation.sent(said.len(), Duration::from_millis(6));
        self.server.extend_from_slice(&said);
        String::from_utf8_lossy(&said).into_owned()
    }

    fn protocol(&self) -> Option<&'static str> {
        self.conversation.protocol().map(Protocol::name)
    }
}

/// Clients that say all at once what they would say one after the other, and the port that they ask for.
const CLIENTS: &[(u16, &[u8])] = &[
    (21, b"USER root\r\nPASS toor\r\nSYST\r\nFEAT\r\nPWD\r\nTYPE I\r\nPASV\r\nLIST\r\nQUIT\r\n"),
    (22, b"SSH-2.0-Go\r\n\x00\x00\x00\x0c\x0a\x14aaaaaaaaaa\x00\x00\x00\x0c\x0a\x1eaaaaaaaaaa"),
    (23, b"\xff\xfb\x18root\r\nvizxv\r\nenable\r\nsh\r\n/bin/busybox MIRAI\r\nexit\r\n"),
    (25, b"EHLO x\r\nAUTH LOGIN\r\nYQ==\r\nYg==\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\nQUIT\r\n"),
    (80, b"GET / HTTP/1.1\r\nHost: h\r\n\r\nPOST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    (80, b"POST /login HTTP/1.1\r\nContent-Length: 9\r\n\r\nuser=root"),
    (80, b"HELP\r\n"),
    (80, b"GET /\r\n"),
    (110, b"CAPA\r\nUSER bob\r\nPASS secret\r\nSTAT\r\nLIST\r\nRETR 1\r\nQUIT\r\n"),
    (143, b"a1 CAPABILITY\r\na2 LOGIN {3}\r\nbob {6+}\r\nsecret\r\na3 SELECT INBOX\r\na4 LOGOUT\r\n"),
    (5432, b"\x00\x00\x00\x08\x04\xd2\x16\x2f\x00\x00\x00\x13\x00\x03\x00\x00user\0root\0\0p\x00\x00\x00\x08abc\0Q\x00\x00\x00\x0dselect 1\0X\x00\x00\x00\x04"),
    (1883, b"\x10\x12\x00\x04MQTT\x04\xc2\x00\x3c\x00\x00\x00\x01a\x00\x01b\x32\x08\x00\x01x\x00\x07hey\x82\x06\x00\x08\x00\x01#\x00\xc0\x00\xe0\x00"),
    (5900, b"RFB 003.008\n\x02aaaaaaaaaaaaaaaa"),
    (6379, b"*2\r\n$4\r\nAUTH\r\n$40\r\naaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n*1\r\n$4\r\ninfo\r\nPING\r\nSET a b\r\nQUIT\r\n"),
    (80, include_bytes!("../../../spip-protocol/fixtures/protocol/curl.http2")),
    (80, include_bytes!("../../../spip-protocol/fixtures/protocol/curl.http")),
];

/// Reports whether the sensor waits for these clients before it speaks.
fn waits(port: u16) -> bool {
    !responder().greets(port)
}

#[test]
fn each_service_is_spoken_by_its_first_protocol() {
    let spoken: Vec<_> = spoken().collect();
    assert_eq!(spoken.len(), SERVICES.len());
    assert!(["ssh", "http", "smtp", "redis"].iter().all(|name| spoken.contains(name)), "{spoken:?}");
}

#[test]
fn settings_of_http2_are_acknowledged_once_and_acknowledgements_are_not() {
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const ACKNOWLEDGED: &[u8] = &[0, 0, 0, 4, 1, 0, 0, 0, 0];
    let mut talk = Talk::to(80);
    talk.says(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let acknowledged = |server: &[u8]| server.windows(9).filter(|frame| *frame == ACKNOWLEDGED).count();
    assert_eq!(acknowledged(&talk.server), 0);
    talk.says(SETTINGS);
    assert_eq!(acknowledged(&talk.server), 1);
    talk.says(ACKNOWLEDGED);
    assert_eq!(acknowledged(&talk.server), 1);
}

#[test]
fn a_login_to_smtp_is_taken_unless_the_client_aborts_it() {
    let mut talk = Talk::to(25);
    talk.silence();
    talk.says(b"EHLO x\r\n");
    for (answer, expected) in [("*", "501 "), ("c2VjcmV0", "235 ")] {
        assert!(talk.says(b"AUTH LOGIN\r\n").starts_with("334 "));
        assert!(talk.says(b"Ym9i\r\n").starts_with("334 "));
        let said = talk.says(format!("{answer}\r\n").as_bytes());
        assert!(said.starts_with(expected), "{answer}: {said}");
    }
}

#[test]
fn pieces_of_any_size_draw_out_the_same_bytes() {
    for (port, bytes) in CLIENTS {
        let mut whole = Talk::to(*port);
        let greeting = whole.silence();
        assert_eq!(greeting.is_empty(), waits(*port), "{port}: {greeting}");
        whole.says(bytes);
        whole.silence();
        assert!(whole.conversation.responses().len() > usize::from(!waits(*port)), "{port}: {:?}", whole.conversation);
        for size in [1, 2, 3, 7, 50] {
            let mut pieces = Talk::to(*port);
            pieces.silence();
            for piece in bytes.chunks(size) {
                pieces.says(piece);
            }
            pieces.silence();
            let texts = [&whole.server, &pieces.server].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            assert_eq!(texts[0], texts[1], "{port} in pieces of {size}");
            assert_eq!(pieces.conversation.responses(), whole.conversation.responses());
        }
    }
}

#[test]
fn who_speaks_first_is_answered_by_what_was_said_on_any_port() {
    let cases: &[(&[u8], &str)] = &[
        (b"GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\nServer: "),
        (b"SSH-2.0-Go\r\n", "SSH-2.0-"),
        (b"*1\r\n$4\r\nPING\r\n", "+PONG\r\n"),
        (b"EHLO x\r\n", "220 "),
        (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", "N"),
        (b"a1 CAPABILITY\r\n", "* OK [CAPABILITY"),
        (b"CAPA\r\n", "+OK "),
        (b"SYST\r\n", "220 "),
        (b"RFB 003.008\n", "RFB 003.008\n"),
        (b"GET /v1.41/containers/json HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found\r\n"),
    ];
    for (bytes, start) in cases {
        for port in [9, 80, 21, 4444] {
            let said = Talk::to(port).says(bytes);
            assert!(said.starts_with(start), "{port} {}: {said}", String::from_utf8_lossy(bytes));
        }
    }
}

#[test]
fn what_decides_nothing_is_answered_by_the_port() {
    let mut talk = Talk::to(6379);
    assert_eq!(talk.says(b"PING\r\n"), "+PONG\r\n");
    let mut talk = Talk::to(21);
    assert_eq!(talk.says(b"USER root\r\n"), "");
    let said = talk.silence();
    assert!(said.starts_with("220 ") && said.ends_with("331 Please specify the password.\r\n"), "{said}");
    assert_eq!(talk.protocol(), Some("ftp"));
    let mut talk = Talk::to(4444);
    assert_eq!(talk.says(b"USER root\r\n") + &talk.silence(), "");
    assert_eq!(talk.protocol(), None);
}

#[test]
fn an_unfinished_line_and_what_may_be_http_are_never_spoken_to_first() {
    for bytes in [b"G".as_slice(), b"GET /", b"GET / HTTP/1.1\r\nHost: x\r\n", b"PRI * HTTP/2.0\r\n", b"\x16\x03"] {
        for port in [21, 22, 23, 25, 110, 143, 3306, 5900] {
            let mut talk = Talk::to(port);
            assert_eq!(talk.says(bytes) + &talk.silence(), "", "{port} {}", String::from_utf8_lossy(bytes));
        }
    }
}

#[test]
fn a_port_without_a_greeting_stays_silent() {
    for port in [9, 80, 5432, 6379, 4444] {
        assert_eq!(Talk::to(port).silence(), "", "{port}");
    }
}

#[test]
fn every_dialogue_that_can_be_configured_exists() {
    for (name, dialogue) in Greeting::ALL {
        assert_eq!(service_for(name).is_some(), dialogue != Greeting::Off, "{name}");
        assert_eq!(dialogue.name(), name);
    }
    for service in SERVICES {
        for protocol in service.protocols {
            assert!(protocol::by_name(protocol).is_some(), "{protocol}");
        }
    }
}

#[test]
fn a_page_has_nothing_of_the_request_and_no_address() {
    let mut talk = Talk::to(80);
    let said = talk
        .says(b"GET /marker?marker HTTP/1.1\r\nHost: marker\r\nX-Forwarded-For: 192.0.2.1\r\nCookie: marker\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 404 Not Found\r\n") && said.contains("Connection: keep-alive"), "{said}");
    assert!(!said.contains("marker") && !said.contains("192.0.2.1"), "{said}");
    assert!(said.contains("Date: Tue, 14 Nov 2023 22:13:20 GMT\r\n"), "{said}");
}

#[test]
fn a_body_is_drawn_out_before_the_answer() {
    let mut talk = Talk::to(80);
    let said = talk.says(b"POST /login HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(said, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(talk.says(b"a=b"), "");
    assert!(talk.says(b"c").starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn a_head_request_and_a_proxy_request_get_what_servers_give() {
    let said = Talk::to(80).says(b"HEAD / HTTP/1.1\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.ends_with("\r\n\r\n"), "{said}");
    let mut talk = Talk::to(80);
    let said = talk.says(b"CONNECT mail.example:25 HTTP/1.1\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 405 Not Allowed\r\n"), "{said}");
    assert!(talk.conversation.is_over());
    let said = Talk::to(80).says(b"GET http://192.0.2.1/ HTTP/1.1\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
}

#[test]
fn the_client_of_a_greeting_is_understood_by_it_where_its_bytes_decide_nothing() {
    let mut talk = Talk::to(23);
    talk.silence();
    assert!(talk.says(b"admin\r\n").ends_with("Password: "));
    assert_eq!(talk.protocol(), Some("telnet"));
    let mut talk = Talk::to(21);
    talk.silence();
    talk.says(b"\x80\x80\x00\r\n");
    assert_eq!(talk.protocol(), None, "noise is not FTP because it came to port 21");
}

#[test]
fn turns_keep_who_said_how_much_when() {
    let mut talk = Talk::to(21);
    let greeting = talk.silence().len() as u64;
    let login = talk.says(b"USER root\r\n").len() as u64;
    talk.says(b"PASS ");
    let turns = talk.conversation.turns();
    let expected = [(false, 0, greeting), (true, 0, 11), (false, greeting, login), (true, 11, 5)];
    let found: Vec<_> = turns.iter().map(|turn| (turn.is_client, turn.offset, turn.length)).collect();
    assert_eq!(found, expected);
    assert_eq!(talk.conversation.bytes_out(), greeting + login);
}

#[test]
fn bytes_that_were_not_kept_end_the_talk() {
    let mut talk = Talk::to(21);
    talk.silence();
    let client = b"USER root\r\n".to_vec();
    let heard = Heard {
        kept: &client[..5],
        received: 11,
        elapsed: Duration::ZERO,
        now: SystemTime::UNIX_EPOCH,
        offers_tls: false,
    };
    talk.conversation.hear(&talk.responder, &heard);
    assert_eq!(talk.take(), "");
    assert!(!talk.conversation.is_listening());
}

#[test]
fn a_server_hangs_up_after_many_refusals() {
    let mut talk = Talk::to(21);
    talk.silence();
    for _ in 0..REFUSALS {
        assert!(!talk.conversation.is_over());
        talk.says(b"XYZZY\r\n");
    }
    assert!(talk.conversation.is_over());
}

#[test]
fn challenges_differ_between_sessions_and_stay_the_same_within_one() {
    let mut talks = [[1; 16], [2; 16], [2; 16]].map(|seed| {
        let mut talk = Talk::to(3306);
        talk.conversation = Conversation::new(3306, seed);
        talk.silence();
        talk.server
    });
    assert_ne!(talks[0], talks[1]);
    assert_eq!(talks[1], talks[2]);
    assert!(!talks[0].split_off(4).starts_with(b"\0"));
}

#[test]
fn a_mysql_client_is_let_in_and_its_query_refused() {
    let mut talk = Talk::to(3306);
    talk.silence();
    let login = include_bytes!("../../../spip-protocol/fixtures/protocol/pymysql.mysql");
    talk.says(login);
    assert_eq!(talk.server[talk.server.len() - 11..], [7, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0]);
    let said = talk.says(b"\x09\x00\x00\x00\x03select 1");
    assert!(said.contains("#42000Access denied; you need"), "{said}");
}

fn within_budget(talk: &Talk) -> bool {
    talk.server.len() as u64 <= talk.client.len() as u64 + ALLOWANCE_BYTES
        && talk.conversation.responses().len() <= LISTED
        && talk.conversation.turns().len() <= LISTED
}

proptest! {
    #[test]
    fn any_bytes_on_any_port_get_no_panic_and_no_more_than_the_budget(
        port in proptest::sample::select(vec![9, 21, 22, 23, 25, 80, 110, 143, 3306, 5432, 5900, 6379]),
        greets: bool,
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..20),
    ) {
        let mut talk = Talk::to(port);
        if greets {
            talk.silence();
        }
        for piece in pieces {
            talk.says(&piece);
            prop_assert!(within_budget(&talk));
        }
    }

    #[test]
    fn clients_that_go_wrong_get_no_panic_and_no_more_than_the_budget(
        pick in any::<proptest::sample::Index>(),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        repeat in 1..40_usize,
        size in 1..200_usize,
    ) {
        let (port, bytes) = pick.get(CLIENTS);
        let mut bytes = bytes.to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let mut talk = Talk::to(*port);
        talk.silence();
        for piece in bytes.repeat(repeat).chunks(size) {
            talk.says(piece);
        }
        prop_assert!(within_budget(&talk), "{} for {}", talk.server.len(), talk.client.len());
    }

    #[test]
    fn nothing_that_is_typed_comes_back(
        port in proptest::sample::select(vec![21, 22, 23, 25, 80, 110, 143, 3306, 5432, 5900, 6379]),
        verb in "(USER|PASS|EHLO|MAIL|GET|a1 LOGIN|a1 SELECT|SET|AUTH|HELP|[A-Z]{2,6})",
    ) {
        let mut talk = Talk::to(port);
        talk.silence();
        for line in [format!("{verb} qzqzqzqz qzqzqzqz\r\n"), "qzqzqzqz\r\n".to_owned()] {
            talk.says(line.as_bytes());
        }
        let server = String::from_utf8_lossy(&talk.server).to_lowercase();
        // A tag of IMAP is short and the one exception.
        let server = server.replace("\r\nqzqzqzqz bad ", "");
        prop_assert!(!server.contains("qzqzqzqz"), "{server}");
    }
}

#[test]
fn every_name_of_a_response_stands_in_the_documentation() {
    let page = include_str!("../../../docs/respond.md");
    let mut names: Vec<&str> = Vec::new();
    for (port, bytes) in CLIENTS {
        let mut talk = Talk::to(*port);
        talk.silence();
        talk.says(bytes);
        talk.silence();
        names.extend(talk.conversation.responses());
    }
    assert!(names.len() > 40, "{names:?}");
    for name in names {
        let (dialogue, kind) = name.split_once('_').expect("a dialogue and a kind");
        let is_ordinary = page.contains(&format!("| `{dialogue}` |")) && page.contains(&format!("`{kind}`"));
        assert!(is_ordinary || page.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn single_bytes_cost_in_proportion_to_their_number() {
    let body = |text: &[u8], byte: u8| {
        let mut bytes = text.to_vec();
        bytes.resize(32 * 1024, byte);
        bytes
    };
    let lines = |text: &[u8], line: &[u8]| {
        let mut bytes = text.to_vec();
        bytes.extend(line.iter().cycle().take(31 * 1024));
        bytes
    };
    let post = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;".as_slice();
    let scripts = [
        ("an unfinished subnegotiation of telnet", 23, body(b"\xff\xfb\x18\xff\xfa\x18", 0xf0)),
        ("a subnegotiation of escapes", 23, body(b"\xff\xfb\x18\xff\xfa\x18", 0xff)),
        ("negotiation without a line", 23, lines(b"\xff\xfb\x18", b"\xff\xfb\x18")),
        ("extensions of a chunk", 80, body(post, b'x')),
        ("a head without an end", 80, lines(b"GET / HTTP/1.1\r\n", b"a: b\r\n")),
        ("a line without an end", 25, body(b"EHLO a\r\n", b'x')),
        (
            "a trailer without an end",
            80,
            lines(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
        ),
        ("a word of redis", 6379, body(b"CONFIG GET x\r\n", b'x')),
        ("a line of imap", 143, body(b"a1 CAPABILITY\r\n", b'x')),
    ];
    for (name, port, script) in scripts {
        let mut talk = Talk::to(port);
        for byte in &script {
            talk.says(std::slice::from_ref(byte));
        }
        let given = talk.conversation.given;
        assert!(given > 0, "{name}: nothing was heard");
        assert!(given < 16 * script.len(), "{name}: {given} bytes were read again for {}", script.len());
    }
}
