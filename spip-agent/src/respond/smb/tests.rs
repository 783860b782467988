//! What clients of both versions are told, up to the tree.

use super::super::tests::Talk;
use super::*;

/// NTLM's first message, and its last with a name.
const BEGINS: &[u8] = b"NTLMSSP\0\x01\0\0\0\x07\x82\x08\xa2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
const ENDS: &[u8] = b"NTLMSSP\0\x03\0\0\0\0\0\0\0\0\0\0\0";

fn message(bytes: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(bytes.len()).expect("short").to_be_bytes();
    [&[0][..], &length, bytes].concat()
}

fn version2(command: u16, body: &[u8]) -> Vec<u8> {
    let mut header = [0; 64];
    header[..6].copy_from_slice(b"\xfeSMB\x40\0");
    header[12..14].copy_from_slice(&command.to_le_bytes());
    message(&[&header[..], body].concat())
}

fn version1(command: u8, flags2: u16, body: &[u8]) -> Vec<u8> {
    let mut header = [0; 32];
    header[..5].copy_from_slice(&[0xff, b'S', b'M', b'B', command]);
    header[10..12].copy_from_slice(&flags2.to_le_bytes());
    message(&[&header[..], body].concat())
}

fn setup2(blob: &[u8]) -> Vec<u8> {
    let body = [&[25, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0][..], &88_u16.to_le_bytes(), &length16(blob), &[0; 8], blob];
    version2(1, &body.concat())
}

/// The status of the last answer of a version, at its place in the header.
fn status_of(server: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*server[4 + at..].first_chunk().expect("a header"))
}

#[test]
fn a_client_of_version_2_is_challenged_let_in_and_shown_the_pipes() {
    let mut talk = Talk::to(4444);
    talk.says(include_bytes!("../../../../spip-protocol/fixtures/protocol/smbprotocol.smb"));
    assert_eq!(talk.server[4 + 64 + 4..][..2], [0x10, 2], "dialect 2.1");
    for (sent, status, name) in [
        (setup2(BEGINS), status::MORE_PROCESSING_REQUIRED, "smb_challenge"),
        (setup2(ENDS), status::SUCCESS, "smb_login"),
        (tree2("\\\\198.51.100.1\\IPC$"), status::SUCCESS, "smb_tree"),
        (tree2("\\\\198.51.100.1\\ADMIN$"), status::BAD_NETWORK_NAME, "smb_refusal"),
        (version2(5, &[57, 0]), status::ACCESS_DENIED, "smb_refusal"),
    ] {
        talk.server.clear();
        talk.says(&sent);
        assert_eq!(status_of(&talk.server, 8), status, "{name}");
        assert_eq!(talk.conversation.responses().last(), Some(&name));
        let length = u32::from_be_bytes(*talk.server.first_chunk().expect("a length"));
        assert_eq!(usize::try_from(length).expect("short") + 4, talk.server.len());
        if name == "smb_challenge" {
            let at = memchr::memmem::find(&talk.server, b"NTLMSSP\0\x02").expect("a challenge");
            assert_eq!(talk.conversation.challenge(), talk.server.get(at + 24..at + 32), "it is recorded");
        }
    }
}

fn tree2(path: &str) -> Vec<u8> {
    let path = utf16(path);
    version2(3, &[&[9, 0, 0, 0][..], &72_u16.to_le_bytes(), &length16(&path), &path].concat())
}

#[test]
fn a_client_of_version_1_is_answered_with_and_without_extended_security() {
    let negotiate = [&[0, 12, 0][..], b"\x02NT LM 0.12\0"].concat();
    for (flags2, length_of_challenge) in [(0x2801, 0), (0xc001, 8)] {
        let mut talk = Talk::to(4444);
        talk.says(&version1(0x72, flags2, &negotiate));
        assert_eq!(talk.server[4 + 9] & 0x80, 0x80);
        assert_eq!((talk.server[4 + 32], talk.server[4 + 32 + 34]), (17, length_of_challenge));
        let setup = if length_of_challenge == 0 {
            let words =
                [&[12, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &length16(BEGINS), &[0; 8], &length16(BEGINS)];
            [&words.concat()[..], BEGINS].concat()
        } else {
            [&[13, 0xff][..], &[0; 27]].concat()
        };
        talk.server.clear();
        talk.says(&version1(0x73, flags2, &setup));
        let expected = if length_of_challenge == 0 { status::MORE_PROCESSING_REQUIRED } else { status::SUCCESS };
        assert_eq!(status_of(&talk.server, 5), expected);
        for (command, status) in
            [(0x75, status::SUCCESS), (0x25, status::INSUFF_SERVER_RESOURCES), (0x32, status::NOT_IMPLEMENTED)]
        {
            talk.server.clear();
            talk.says(&version1(command, flags2, &[0, 0, 0]));
            assert_eq!(status_of(&talk.server, 5), status, "{command:#x}");
        }
    }
}

#[test]
fn a_client_that_offers_both_versions_gets_the_second() {
    let mut talk = Talk::to(4444);
    let dialects = b"\x02NT LM 0.12\0\x02SMB 2.002\0\x02SMB 2.???\0";
    talk.says(&version1(0x72, 0xc843, &[&[0, 34, 0][..], dialects].concat()));
    assert_eq!(talk.server[4..8], *b"\xfeSMB");
    assert_eq!(talk.server[4 + 64 + 4..][..2], [0xff, 2]);
}

#[test]
fn a_session_request_of_netbios_is_granted() {
    let mut talk = Talk::to(4444);
    let names = b"\x20CKFDENECFDEFFCFGEFFCCACACACACACA\x00\x20EOENEBFACACACACACACACACACACACACA\x00";
    talk.says(&[b"\x81\x00\x00\x44", names.as_slice()].concat());
    assert_eq!(talk.server, [0x82, 0, 0, 0]);
}

#[test]
fn messages_that_are_none_end_the_talk_and_none_panics() {
    let sample = include_bytes!("../../../../spip-protocol/fixtures/protocol/smbprotocol.smb");
    for end in 4..sample.len() {
        let mut talk = Talk::to(4444);
        talk.says(&version1(0x72, 0, &[0, 12, 0, 2, 78]));
        for bytes in [&sample[4..end], &version1(0x73, 0x8801, &sample[4..end])[4..]] {
            talk.says(&message(bytes));
        }
    }
    let mut talk = Talk::to(4444);
    talk.says(b"\0\0\0\x24\xffSMB");
    talk.says(&[b'r'; 32]);
    assert_eq!(talk.says(b"\0\xff\xff\xff"), "");
    assert!(talk.conversation.is_over());
}
