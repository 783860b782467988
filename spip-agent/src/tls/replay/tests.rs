use super::*;
use crate::tls::tests::run;
use tokio::io::AsyncReadExt;

const HELLO: &[u8] = b"\x16\x03\x01\x00\x04abcd";
const RECORD: &[u8] = b"\x14\x03\x03\x00\x01\x01";

async fn read(stream: &mut Replay<&[u8]>) -> Vec<u8> {
    let mut bytes = [0; 64];
    let length = stream.read(&mut bytes).await.expect("read");
    bytes[..length].to_vec()
}

#[test]
fn bytes_come_in_portions_of_a_record_until_the_handshake_is_over() {
    run(async {
        let rest = [RECORD, RECORD, b"more"].concat();
        for early in 0..rest.len() {
            let (early, late) = rest.split_at(early);
            let mut stream = Replay::new([HELLO, early].concat(), HELLO.len(), late);
            assert_eq!(read(&mut stream).await, HELLO);
            let mut portions = Vec::new();
            while portions.len() < RECORD.len() {
                portions.extend(read(&mut stream).await);
            }
            assert_eq!(portions, RECORD, "never more than one record at once");
            stream.end_opening();
            let mut after = Vec::new();
            stream.read_to_end(&mut after).await.expect("read");
            assert_eq!(after, [RECORD, b"more"].concat());
            assert_eq!(stream.bytes.capacity(), 0);
        }
    });
}

#[test]
fn what_is_no_record_is_handed_on_once_and_can_be_had_back() {
    run(async {
        for clear in [&b"G"[..], b"GET / HTTP/1.1\r\n\r\n", b"\x16\x02\x01", b"\x17\x03\x03\xff\xffx", b"\0"] {
            for early in 0..=clear.len() {
                let (early, late) = clear.split_at(early);
                let mut stream = Replay::new([HELLO, RECORD, early].concat(), HELLO.len(), late);
                assert_eq!(read(&mut stream).await, HELLO);
                assert_eq!(read(&mut stream).await, RECORD);
                assert!(!stream.is_in_clear());
                assert!(clear.starts_with(&read(&mut stream).await));
                assert_eq!(read(&mut stream).await, b"");
                assert!(stream.is_in_clear());
                let mut kept = stream.go_on_in_clear();
                stream.read_to_end(&mut kept).await.expect("read");
                assert_eq!(kept, clear);
            }
        }
    });
}

#[test]
fn of_what_a_refused_client_sends_only_what_is_in_clear_is_read() {
    run(async {
        for (rest, clear) in [
            (&b""[..], &b""[..]),
            (RECORD, b""),
            (b"QUIT\r\n", b"QUIT\r\n"),
            (b"\x14\x03\x03\x00\x01\x01QUIT", b"QUIT"),
            (b"\x14\x03\x03\x00\x01\x01\x17\x03\x03\x00\x04abcdQUIT\x14\x03\x03", b"QUIT\x14\x03\x03"),
            // Neither a record's content nor part of a header is something in clear.
            (b"\x17\x03\x03\x00\x04QUI", b""),
            (b"\x14\x03", b""),
        ] {
            for early in 0..=rest.len() {
                let (early, late) = rest.split_at(early);
                let mut stream = Replay::new([HELLO, early].concat(), HELLO.len(), late);
                let mut kept = stream.go_on_in_clear();
                assert!(clear.starts_with(&kept), "{kept:?}");
                stream.read_to_end(&mut kept).await.expect("read");
                assert_eq!(kept, clear);
            }
        }
    });
}

#[test]
fn what_stands_in_the_hellos_own_record_behind_it_is_in_clear() {
    run(async {
        let mut stream = Replay::new(HELLO.to_vec(), HELLO.len() - 1, RECORD);
        assert_eq!(read(&mut stream).await, HELLO[..HELLO.len() - 1]);
        assert_eq!(read(&mut stream).await, b"d");
        assert!(stream.is_in_clear());
        let mut kept = stream.go_on_in_clear();
        stream.read_to_end(&mut kept).await.expect("read");
        assert_eq!(kept, [b"d", RECORD].concat());
    });
}

#[test]
fn a_stream_that_ends_inside_a_header_ends() {
    run(async {
        let mut stream = Replay::new([HELLO, b"\x16\x03"].concat(), HELLO.len(), &b"\x01"[..]);
        assert_eq!(read(&mut stream).await, HELLO);
        assert_eq!(read(&mut stream).await, b"");
        assert!(!stream.is_in_clear());
        assert_eq!(stream.go_on_in_clear(), b"");
    });
}

/// Says `[1, 0, 0, length, …]` as one byte more.
#[expect(clippy::unnecessary_wraps, reason = "one of those that may refuse")]
fn longer(message: &[u8]) -> Option<Vec<u8>> {
    let length = u8::try_from(message.len() + 1).expect("short");
    Some([&[0x16, 3, 1, 0, length], message, b"!"].concat())
}

const FIRST: &[u8] = b"\x16\x03\x01\x00\x06\x01\x00\x00\x02ab";
const LONGER: &[u8] = b"\x16\x03\x01\x00\x07\x01\x00\x00\x02ab!";

#[test]
fn a_rewritten_hello_changes_nothing_behind_it() {
    run(async {
        let mut stream = Replay::new([FIRST, RECORD].concat(), FIRST.len(), &b"!"[..]);
        assert!(!stream.rewrite_hellos(|_| None, true));
        assert_eq!(stream.hello(), FIRST);
        assert!(stream.rewrite_hellos(longer, false));
        assert_eq!(read(&mut stream).await, LONGER);
        assert_eq!(read(&mut stream).await, RECORD);
        assert_eq!(read(&mut stream).await, b"!");
        assert!(stream.is_in_clear());
    });
}

#[test]
fn a_second_hello_is_rewritten_however_it_is_cut() {
    run(async {
        let cut = spip_protocol::client_hello::sample::in_records(b"\x01\x00\x00\x02ab", 1);
        for second in [FIRST, &cut] {
            let rest = [RECORD, second, RECORD, FIRST].concat();
            for early in 0..rest.len() {
                let (early, late) = rest.split_at(early);
                let mut stream = Replay::new([FIRST, early].concat(), FIRST.len(), late);
                assert!(stream.rewrite_hellos(longer, true));
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.expect("read");
                assert_eq!(all, [LONGER, RECORD, LONGER, RECORD, FIRST].concat());
            }
            // Where none is expected it is left alone.
            let mut stream = Replay::new(FIRST.to_vec(), FIRST.len(), &rest[..]);
            assert!(stream.rewrite_hellos(longer, false));
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.expect("read");
            assert_eq!(all, [LONGER, &rest].concat());
        }
    });
}

/// Records without end, in reads that all stop in the middle of a header.
struct Cut(usize);

impl AsyncRead for Cut {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let bytes = RECORD.iter().cycle().skip(self.0 % RECORD.len());
        let length = if self.0 == 0 { RECORD.len() + 2 } else { RECORD.len() };
        buffer.put_slice(&bytes.take(length).copied().collect::<Vec<u8>>());
        self.0 += length;
        Poll::Ready(Ok(()))
    }
}

#[test]
fn what_was_taken_is_not_held_however_records_are_cut() {
    run(async {
        let mut stream = Replay::new(HELLO.to_vec(), HELLO.len(), Cut(0));
        let mut bytes = [0; 64];
        for _ in 0..10_000 {
            assert_ne!(stream.read(&mut bytes).await.expect("read"), 0);
            assert!(stream.bytes.len() < HELLO.len() + HEADER_BYTES + RECORD.len(), "{}", stream.bytes.len());
        }
        assert!(!stream.is_in_clear());
    });
}
