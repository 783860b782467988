use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::client::TlsStream;

use super::*;
use crate::tls::tests::client::{Client, TLS_1_2, TLS_1_3, Versions, run};
use crate::tls::{KeyKind, TlsServer, config_for};

/// Both sides of a completed handshake, over a pipe that holds few bytes.
async fn connected(versions: Versions) -> (Driver<DuplexStream>, TlsStream<DuplexStream>) {
    let (far, near) = tokio::io::duplex(1_000);
    let client = tokio::spawn(Client { versions, ..Client::default() }.connect(far));
    let driver = Driver::accept(config().await, Replay::new(Vec::new(), 0, near)).await.expect("a handshake");
    (driver, client.await.expect("no panic").expect("a handshake"))
}

async fn config() -> Arc<ServerConfig> {
    let server = TlsServer::new(None, false).expect("a server");
    let identity = server.identity(None, KeyKind::Ecdsa).await.expect("a certificate");
    config_for(&server.base, &identity, None)
}

fn memory(driver: &Driver<DuplexStream>) -> [usize; 3] {
    [&driver.incoming, &driver.decrypted, &driver.outgoing].map(|buffer| buffer.bytes.capacity())
}

#[test]
fn more_than_any_buffer_holds_goes_both_ways_and_nothing_is_held_afterwards() {
    run(async {
        for versions in [TLS_1_2, TLS_1_3] {
            let (mut driver, mut client) = connected(versions).await;
            assert_eq!(memory(&driver), [0; 3], "after the handshake");
            let sent: Vec<u8> = (0..200_000_u32).map(|number| (number % 251) as u8).collect();
            let (expected, back) = (sent.clone(), sent.clone());
            let far = tokio::spawn(async move {
                client.write_all(&sent).await.expect("written");
                client.flush().await.expect("written");
                let mut received = vec![0; back.len()];
                client.read_exact(&mut received).await.expect("read");
                assert!(received == back);
                client
            });
            let mut received = vec![0; expected.len()];
            driver.read_exact(&mut received).await.expect("read");
            assert!(received == expected);
            driver.write_all(&received).await.expect("written");
            driver.flush().await.expect("written");
            let mut client = far.await.expect("no panic");
            assert_eq!(memory(&driver), [0; 3], "idle");
            client.write_all(b"more").await.expect("written");
            client.flush().await.expect("written");
            driver.read_exact(&mut received[..4]).await.expect("read");
            assert_eq!((&received[..4], memory(&driver)), (&b"more"[..], [0; 3]));
        }
    });
}

#[test]
fn each_side_says_its_end_once_and_nothing_follows() {
    run(async {
        for versions in [TLS_1_2, TLS_1_3] {
            let (mut driver, mut client) = connected(versions).await;
            client.write_all(b"last").await.expect("written");
            client.shutdown().await.expect("written");
            let mut received = Vec::new();
            driver.read_to_end(&mut received).await.expect("an end that was said");
            assert_eq!(received, b"last");
            assert_eq!(driver.read(&mut [0; 8]).await.expect("still the end"), 0);
            driver.shutdown().await.expect("said");
            driver.shutdown().await.expect("said before");
            driver.write_all(b"too late").await.expect_err("nothing is sent behind the end");
            let mut received = Vec::new();
            client.read_to_end(&mut received).await.expect("an end that was said");
            assert_eq!(received, b"");
        }
    });
}

#[test]
fn an_end_that_was_not_said_is_an_error_behind_what_came_before() {
    run(async {
        let (mut driver, mut client) = connected(TLS_1_3).await;
        client.write_all(b"cut").await.expect("written");
        client.flush().await.expect("written");
        drop(client);
        let mut received = Vec::new();
        let error = driver.read_to_end(&mut received).await.expect_err("cut off");
        assert_eq!((&received[..], error.kind()), (&b"cut"[..], io::ErrorKind::UnexpectedEof));
    });
}

#[test]
fn a_broken_record_is_an_error_behind_what_came_before_and_stays_one() {
    run(async {
        let (mut driver, mut client) = connected(TLS_1_3).await;
        client.write_all(b"good").await.expect("written");
        client.flush().await.expect("written");
        client
            .get_mut()
            .0
            .write_all(&[23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20])
            .await
            .expect("written");
        let mut received = Vec::new();
        for _ in 0..2 {
            let error = driver.read_to_end(&mut received).await.expect_err("no record of the session");
            assert_eq!((&received[..], error.kind()), (&b"good"[..], io::ErrorKind::InvalidData));
        }
        driver.write_all(b"answer").await.expect_err("the session is over");
        driver.shutdown().await.expect("the alert was the end");
        let error = client.read_to_end(&mut received).await.expect_err("an alert");
        assert!(error.to_string().contains("alert"), "{error}");
    });
}

#[test]
fn a_handshake_message_without_end_is_refused_and_its_bytes_are_bounded() {
    run(async {
        let (mut far, near) = tokio::io::duplex(1_000);
        let refused = tokio::spawn(async move {
            // Records of 16 KiB, that go on with one hello of 16 MiB.
            let mut record = vec![22, 3, 3, 0x40, 0];
            record.resize(5 + 0x4000, 0);
            record[5..9].copy_from_slice(&[1, 0xff, 0xff, 0xff]);
            let mut sent = 0;
            while far.write_all(&record).await.is_ok() {
                sent += record.len();
                record[5..9].fill(0);
            }
            sent
        });
        let (error, stream) =
            Driver::accept(config().await, Replay::new(Vec::new(), 0, near)).await.expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        drop(stream);
        assert!(refused.await.expect("no panic") <= MAX_INCOMING_BYTES + READ_BYTES + 0x4005);
    });
}
