//! Hellos for tests: made to order, and those that the fixtures hold.

use super::extension;

/// A hello under construction.
#[derive(Clone, Debug)]
pub struct Hello {
    version: u16,
    ciphers: Vec<u16>,
    extensions: Vec<u8>,
    with_extensions: bool,
}

impl Default for Hello {
    fn default() -> Self {
        Self::new()
    }
}

impl Hello {
    /// Starts a hello of TLS 1.2 without ciphers and extensions.
    #[must_use]
    pub fn new() -> Self {
        Self { version: 0x0303, ciphers: Vec::new(), extensions: Vec::new(), with_extensions: false }
    }

    /// Sets the legacy version.
    #[must_use]
    pub fn version(mut self, version: u16) -> Self {
        self.version = version;
        self
    }

    /// Sets the cipher suites.
    #[must_use]
    pub fn ciphers(mut self, ciphers: &[u16]) -> Self {
        self.ciphers = ciphers.to_vec();
        self
    }

    /// Adds an extension.
    #[must_use]
    pub fn extension(mut self, number: u16, body: &[u8]) -> Self {
        self.with_extensions = true;
        self.extensions.extend(number.to_be_bytes());
        self.extensions.extend(list16(body));
        self
    }

    /// Adds the name of a server.
    #[must_use]
    pub fn server_name(self, name: &[u8]) -> Self {
        let entry = [&[0][..], &list16(name)].concat();
        self.extension(extension::SERVER_NAME, &list16(&entry))
    }

    /// Adds application protocols.
    #[must_use]
    pub fn protocols(self, names: &[&[u8]]) -> Self {
        let names: Vec<u8> = names.iter().flat_map(|name| list8(name)).collect();
        self.extension(extension::APPLICATION_LAYER_PROTOCOL_NEGOTIATION, &list16(&names))
    }

    /// Adds supported groups.
    #[must_use]
    pub fn groups(self, groups: &[u16]) -> Self {
        self.extension(extension::SUPPORTED_GROUPS, &list16(&numbers(groups)))
    }

    /// Adds point formats.
    #[must_use]
    pub fn point_formats(self, formats: &[u8]) -> Self {
        self.extension(extension::EC_POINT_FORMATS, &list8(formats))
    }

    /// Adds signature algorithms.
    #[must_use]
    pub fn signature_algorithms(self, algorithms: &[u16]) -> Self {
        self.extension(extension::SIGNATURE_ALGORITHMS, &list16(&numbers(algorithms)))
    }

    /// Adds supported versions.
    #[must_use]
    pub fn versions(self, versions: &[u16]) -> Self {
        self.extension(extension::SUPPORTED_VERSIONS, &list8(&numbers(versions)))
    }

    /// Returns the handshake message, header included.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.push(0);
        body.extend(list16(&numbers(&self.ciphers)));
        body.extend([1, 0]);
        if self.with_extensions {
            body.extend(list16(&self.extensions));
        }
        let length = u32::try_from(body.len()).expect("short").to_be_bytes();
        [&[1, length[1], length[2], length[3]], &body[..]].concat()
    }

    /// Returns the message in records with at most `content` bytes each.
    #[must_use]
    pub fn records(&self, content: usize) -> Vec<u8> {
        in_records(&self.message(), content)
    }
}

/// Wraps a handshake message in records with at most `content` bytes each.
#[must_use]
pub fn in_records(message: &[u8], content: usize) -> Vec<u8> {
    message.chunks(content).flat_map(|part| [&[22, 3, 1][..], &list16(part)].concat()).collect()
}

fn numbers(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

fn list8(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).expect("short")], bytes].concat()
}

fn list16(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("short").to_be_bytes();
    [&length, bytes].concat()
}

/// A captured hello.
#[derive(Clone, Debug)]
pub struct Vector {
    /// The client, as the fixture names it.
    pub source: String,
    /// The stream from the hello on; some go on after it.
    pub stream: Vec<u8>,
    /// Its JA4, as others computed it.
    pub ja4: String,
}

/// Returns the hellos of the fixtures.
#[must_use]
pub fn vectors() -> Vec<Vector> {
    let all: Vec<serde_json::Value> = serde_json::from_str(include_str!("../../fixtures/ja4.json")).expect("fixture");
    let vectors: Vec<_> = all
        .iter()
        .map(|vector| {
            let text = |key: &str| vector[key].as_str().expect(key).to_owned();
            Vector {
                source: text("source"),
                stream: hex::decode(text("client_hello_records_hex")).expect("hex"),
                ja4: text("ja4"),
            }
        })
        .collect();
    assert_eq!(vectors.len(), 7, "the fixture holds seven hellos");
    vectors
}
