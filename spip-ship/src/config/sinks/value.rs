//! Values of keys: names, bounds, URLs. What is refused is refused with the key and what is accepted.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::super::Mistake;

#[derive(Deserialize)]
#[serde(untagged)]
pub(in crate::config) enum Urls {
    One(String),
    Several(Vec<String>),
}

/// Reports whether `text` is a name for files, consumers and labels.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

pub(super) fn within<T: PartialOrd + std::fmt::Display>(key: &str, value: T, least: T, most: T) -> Result<T, Mistake> {
    if value < least || value > most {
        return Err(Mistake::new(key, format!("{value} is not accepted: {least} to {most}")));
    }
    Ok(value)
}

pub(super) fn seconds(key: &str, value: Option<u64>, default: u64, most: u64) -> Result<Duration, Mistake> {
    within(key, value.unwrap_or(default), 1, most).map(Duration::from_secs)
}

pub(super) fn identifier(key: &str, text: String) -> Result<String, Mistake> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if text.is_empty() || !is_plain || text.as_bytes()[0].is_ascii_digit() {
        return Err(Mistake::new(key, "letters, digits and _ are accepted, the first no digit"));
    }
    Ok(text)
}

pub(super) fn index(text: Option<String>) -> Result<String, Mistake> {
    let text = text.unwrap_or_else(|| "logs-spip-default".to_owned());
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_plain) || text.starts_with(['-', '_', '.']) {
        return Err(Mistake::new("sink.index", "lower-case letters, digits, -, _ and . are accepted"));
    }
    Ok(text)
}

pub(super) fn certificate(
    table: &str,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Option<(PathBuf, PathBuf)>, Mistake> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(Mistake::new(format!("{table}.key_file"), "is missing: cert_file needs its key")),
        (None, Some(_)) => {
            Err(Mistake::new(format!("{table}.cert_file"), "is missing: key_file needs its certificate"))
        }
    }
}

/// Refuses a password in a URL, which ends up in messages and process lists.
fn without_secret(table: &str, url: &str) -> Result<(), Mistake> {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        let message = "must not have a user or password: use user and password_file, or token_file";
        return Err(Mistake::new(format!("{table}.url"), message));
    }
    Ok(())
}

pub(super) fn nats_urls(table: &str, urls: Option<Urls>) -> Result<Vec<String>, Mistake> {
    let key = format!("{table}.url");
    let urls = match urls {
        None => return Err(Mistake::new(key, "is missing: such as \"nats://127.0.0.1:4222\", or a list of them")),
        Some(Urls::One(url)) => url.split(',').map(|url| url.trim().to_owned()).collect(),
        Some(Urls::Several(urls)) => urls,
    };
    for url in &urls {
        without_secret(table, url)?;
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        if !["nats", "tls"].contains(&scheme) {
            return Err(Mistake::new(key, format!("{url:?} is not accepted: nats://HOST:PORT or tls://HOST:PORT")));
        }
    }
    if urls.is_empty() {
        return Err(Mistake::new(key, "is empty: such as \"nats://127.0.0.1:4222\""));
    }
    Ok(urls)
}

pub(super) fn http_url(urls: Option<Urls>) -> Result<String, Mistake> {
    let Some(Urls::One(url)) = urls else {
        return Err(Mistake::new("sink.url", "one URL is needed, such as \"http://127.0.0.1:8123\""));
    };
    without_secret("sink", &url)?;
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(Mistake::new("sink.url", format!("{url:?} is not accepted: http://… or https://…")));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

pub(super) fn stream_name(table: &str, stream: Option<String>) -> Result<String, Mistake> {
    let stream = stream.unwrap_or_else(|| "SPIP".to_owned());
    if !is_token(&stream) {
        return Err(Mistake::new(format!("{table}.stream"), "letters, digits, - and _ are accepted"));
    }
    Ok(stream)
}

pub(super) fn subject_prefix(table: &str, prefix: Option<String>) -> Result<String, Mistake> {
    let prefix = prefix.unwrap_or_else(|| "spip.records".to_owned());
    if !prefix.split('.').all(is_token) {
        return Err(Mistake::new(
            format!("{table}.subject_prefix"),
            "tokens of letters, digits, - and _, separated by dots",
        ));
    }
    Ok(prefix)
}

pub(super) fn domain(table: &str, domain: Option<String>) -> Result<Option<String>, Mistake> {
    if domain.as_deref().is_some_and(|domain| !is_token(domain)) {
        return Err(Mistake::new(format!("{table}.domain"), "letters, digits, - and _ are accepted"));
    }
    Ok(domain)
}
