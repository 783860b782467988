//! Requests to an HTTP server: bounded in time and size, without redirects, with secrets that are read for each request.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use crate::config::HttpAccess;
use crate::sink::Failure;

/// Time for a connection, TLS not included.
const CONNECT: Duration = Duration::from_secs(10);

/// The longest answer that is read: that to a bulk request names each of some ten thousand items.
const MAX_ANSWER_BYTES: u64 = 32 * 1024 * 1024;

/// Letters of an answer that are repeated in a message.
const QUOTED: usize = 300;

/// A server.
pub struct Server {
    access: HttpAccess,
    agent: Option<Agent>,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// `Retry-After` in seconds.
    pub retry_after: Option<Duration>,
    /// The exception's number, of ClickHouse.
    pub exception: Option<u32>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Reports whether the server did what it was asked for.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns the beginning of the body on one line.
    #[must_use]
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.is_empty() { "no explanation".to_owned() } else { line.chars().take(QUOTED).collect() }
    }
}

impl Server {
    /// Names a server; the first request connects.
    #[must_use]
    pub fn new(access: HttpAccess) -> Self {
        Self { access, agent: None }
    }

    /// Returns the server's URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.access.url
    }

    /// Returns how to reach the server.
    #[must_use]
    pub fn access(&self) -> &HttpAccess {
        &self.access
    }

    /// Posts `body` to `path`, which begins with a slash, a question mark, or is empty.
    ///
    /// # Errors
    /// There is no answer.
    pub fn post(&mut self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer, Failure> {
        let authorization = self.authorization()?;
        let url = format!("{}{path}", self.access.url);
        let agent = match &self.agent {
            Some(agent) => agent.clone(),
            None => self.agent.insert(agent(&self.access)?).clone(),
        };
        let mut request = agent.post(&url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        for (name, value) in &authorization {
            request = request.header(*name, value.as_str());
        }
        let answer = request.send(body).and_then(|mut answer| {
            let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
            let retry_after = header("retry-after").and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
            let exception = header("x-clickhouse-exception-code").and_then(|text| text.trim().parse().ok());
            let status = answer.status().as_u16();
            let body = answer.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec()?;
            Ok(Answer { status, retry_after, exception, body })
        });
        answer.map_err(|error| {
            // Certificates may have been renewed, and the name may lead elsewhere by now.
            self.agent = None;
            Failure::new(format!("{}: {error}", self.access.url))
        })
    }

    fn authorization(&self) -> Result<Vec<(&'static str, String)>, Failure> {
        let access = &self.access;
        let mut headers = Vec::new();
        if let Some(token) = &access.token {
            headers.push(("Authorization", format!("Bearer {}", token.read().map_err(Failure::new)?)));
        } else if let Some(key) = &access.api_key {
            headers.push(("Authorization", format!("ApiKey {}", key.read().map_err(Failure::new)?)));
        } else if let Some(user) = &access.user {
            let password = match &access.password {
                Some(password) => password.read().map_err(Failure::new)?,
                None => String::new(),
            };
            let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            headers.push(("Authorization", format!("Basic {text}")));
        }
        Ok(headers)
    }
}

fn agent(access: &HttpAccess) -> Result<Agent, Failure> {
    let mut tls = TlsConfig::builder();
    if access.url.starts_with("https://") {
        tls = tls.root_certs(RootCerts::new_with_certs(&authorities(access.ca.as_deref())?));
        if let Some((certificate, key)) = &access.certificate {
            tls = tls.client_cert(Some(client_certificate(certificate, key)?));
        }
    }
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(CONNECT))
        .timeout_global(Some(access.timeout))
        .max_idle_connections(1)
        .user_agent(concat!("spip-ship/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls.build())
        .build();
    Ok(config.into())
}

fn authorities(file: Option<&Path>) -> Result<Vec<Certificate<'static>>, Failure> {
    let Some(file) = file else {
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() {
            return Err(Failure::new(
                "this system has no certificate authorities: install ca-certificates, or set ca_file",
            ));
        }
        return Ok(found.certs.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect());
    };
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|error| Failure::new(format!("cannot read ca_file {}: {error}", file.display())))?;
    if found.is_empty() {
        return Err(Failure::new(format!("ca_file {} has no certificate", file.display())));
    }
    Ok(found.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect())
}

fn client_certificate(certificate: &Path, key: &Path) -> Result<ClientCert, Failure> {
    let read = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain =
        read.map_err(|error| Failure::new(format!("cannot read cert_file {}: {error}", certificate.display())))?;
    // Read here for its message; parsed again there for its type.
    PrivateKeyDer::from_pem_file(key)
        .map_err(|error| Failure::new(format!("cannot read key_file {}: {error}", key.display())))?;
    let pem = std::fs::read(key).map_err(|error| Failure::new(format!("cannot read key_file: {error}")))?;
    let key = PrivateKey::from_pem(&pem).map_err(|error| Failure::new(format!("cannot use key_file: {error}")))?;
    let chain: Vec<_> = chain.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
    Ok(ClientCert::new_with_certs(&chain, key))
}
