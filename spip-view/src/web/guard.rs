//! Access control of the page, also against requests from other sites.
//!
//! - `Host` must name the address on which the server listens, or a configured name: a page of an attacker whose name
//!   is made to point to 127.0.0.1 (DNS rebinding) has its own name there.
//! - `Origin` and `Sec-Fetch-Site`, where a browser sends them, must not be of another site: what is here is not for
//!   scripts of others. Links from elsewhere (navigation) are allowed: nothing is changed by GET, and only GET is
//!   answered.
//! - The token, where one is configured, is compared in constant time: as a bearer token, or as the password of Basic
//!   authentication, which browsers ask for.
//! - Each answer forbids scripts that are not the program's own, frames, sniffing, and referrers.

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest, Sha256};

use crate::config::Listen;

/// Headers of every answer.
const HEADERS: &[(&str, &str)] = &[
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
         base-uri 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
];

/// Access rules of the page.
#[derive(Debug)]
pub(super) struct Guard {
    /// Names with which `Host` may begin, in lower case; a port may follow.
    hosts: Vec<String>,
    /// A unix socket has no name: any Host is right.
    is_local: bool,
    /// SHA-256 of the token.
    token: Option<[u8; 32]>,
}

impl Guard {
    pub(super) fn new(listen: &Listen, names: &[String], token: Option<&str>) -> Self {
        let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "[::1]".to_owned()];
        if let Listen::Tcp(address) = listen {
            let ip = address.ip();
            hosts.push(if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() });
        }
        hosts.extend(names.iter().cloned());
        let token = token.map(|token| Sha256::digest(token).into());
        Self { hosts, is_local: matches!(listen, Listen::Unix(_)), token }
    }

    /// Refuses a request that is not for this page, or not from its operator.
    pub(super) fn check(&self, request: &Request<Body>) -> Result<(), Box<Response>> {
        let refuse = |status: StatusCode, text: &str| Err(Box::new((status, format!("{text}\n")).into_response()));
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered: nothing can be changed here");
        }
        let headers = request.headers();
        if !self.is_local && !header(headers, &HOST).is_some_and(|host| self.is_own(host)) {
            return refuse(
                StatusCode::MISDIRECTED_REQUEST,
                "this name does not belong to spip-view: add it to `hosts` in the configuration, or --host NAME",
            );
        }
        let origin = header(headers, &ORIGIN).and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
        let is_foreign = headers.contains_key(ORIGIN) && !origin.is_some_and(|host| self.is_local || self.is_own(host));
        let fetch = |name: &'static str| header(headers, &HeaderName::from_static(name));
        let is_cross = fetch("sec-fetch-site") == Some("cross-site") && fetch("sec-fetch-mode") != Some("navigate");
        if is_foreign || is_cross {
            return refuse(StatusCode::FORBIDDEN, "this request comes from a page of another site");
        }
        if self.token.is_some_and(|token| !sends(headers, &token)) {
            let mut answer = (StatusCode::UNAUTHORIZED, "the token is missing or wrong\n").into_response();
            answer
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"spip-view\", charset=\"UTF-8\""));
            return Err(Box::new(answer));
        }
        Ok(())
    }

    fn is_own(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        self.hosts.iter().any(|own| {
            let rest = host.strip_prefix(own.as_str());
            rest.is_some_and(|rest| {
                rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
            })
        })
    }
}

/// Adds the headers that every answer has.
pub(super) fn harden(answer: &mut Response) {
    for (name, value) in HEADERS {
        answer.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    // Two of them are a mistake or an attack.
    if values.next().is_some() { None } else { value.to_str().ok() }
}

/// Reports whether a request brings the token. Hashes are compared, so that the time says nothing of the secret.
fn sends(headers: &HeaderMap, token: &[u8; 32]) -> bool {
    let Some((scheme, value)) = header(headers, &AUTHORIZATION).and_then(|text| text.split_once(' ')) else {
        return false;
    };
    let given = if scheme.eq_ignore_ascii_case("bearer") {
        Some(value.trim().as_bytes().to_vec())
    } else if scheme.eq_ignore_ascii_case("basic") {
        use base64::Engine as _;
        let pair = base64::engine::general_purpose::STANDARD.decode(value.trim()).unwrap_or_default();
        let colon = pair.iter().position(|byte| *byte == b':');
        colon.and_then(|colon| pair.get(colon + 1..)).map(<[u8]>::to_vec)
    } else {
        None
    };
    given.is_some_and(|given| <[u8; 32]>::from(Sha256::digest(given)) == *token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(token: Option<&str>) -> Guard {
        Guard::new(&Listen::Tcp("127.0.0.1:8765".parse().unwrap()), &["view.example".to_owned()], token)
    }

    fn status(guard: &Guard, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match guard.check(&request.body(Body::empty()).unwrap()) {
            Ok(()) => 200,
            Err(answer) => answer.status().as_u16(),
        }
    }

    #[test]
    fn only_the_own_names_are_answered() {
        let guard = guard(None);
        for host in ["127.0.0.1:8765", "localhost:8765", "LOCALHOST", "[::1]:8765", "view.example", "view.example:443"]
        {
            assert_eq!(status(&guard, &[("host", host)]), 200, "{host}");
        }
        for host in
            ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "localhost:x", "", "127.0.0.12"]
        {
            assert_eq!(status(&guard, &[("host", host)]), 421, "{host}");
        }
        assert_eq!(status(&guard, &[]), 421);
        assert_eq!(status(&guard, &[("host", "localhost"), ("host", "evil.example")]), 421);
    }

    #[test]
    fn requests_of_other_sites_are_refused() {
        let guard = guard(None);
        let with = |headers: &[(&str, &str)]| {
            let headers: Vec<_> = [("host", "localhost:8765")].iter().chain(headers).copied().collect();
            status(&guard, &headers)
        };
        assert_eq!(with(&[("origin", "http://localhost:8765")]), 200);
        assert_eq!(with(&[("origin", "https://evil.example")]), 403);
        assert_eq!(with(&[("origin", "null")]), 403);
        assert_eq!(with(&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")]), 403);
        assert_eq!(with(&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]), 200);
        assert_eq!(with(&[("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors")]), 200);
    }

    #[test]
    fn the_token_is_taken_from_a_script_and_from_a_browser() {
        let guard = guard(Some("sesame-0123456789"));
        let with = |value: &str| status(&guard, &[("host", "localhost"), ("authorization", value)]);
        assert_eq!(with("Bearer sesame-0123456789"), 200);
        assert_eq!(with("Basic b3BlcmF0b3I6c2VzYW1lLTAxMjM0NTY3ODk="), 200);
        for wrong in ["Bearer sesame", "Basic c2VzYW1l", "Digest x", "Bearer", ""] {
            assert_eq!(with(wrong), 401, "{wrong}");
        }
        assert_eq!(status(&guard, &[("host", "localhost")]), 401);
    }

    #[test]
    fn nothing_is_changed_by_a_request() {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let request = Request::builder().method(method).header("host", "localhost").body(Body::empty()).unwrap();
            let answer = guard(None).check(&request).unwrap_err();
            assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
        }
    }
}
