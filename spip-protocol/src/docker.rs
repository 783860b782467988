//! The Docker Engine API, asked over HTTP/1: an open one is a root shell, and scanners know it.
//!
//! Only paths that belong to Docker alone decide: a versioned path (`/v1.41/containers/json`), or an operation on
//! containers, images or exec instances. `/version` and `/info` exist everywhere and stay `http`.
//! <https://docs.docker.com/reference/api/engine/>

use super::http::path;
use super::reader::{End, Reader};
use super::request_line::{Family, request_line};
use super::{Protocol, Understanding, http1};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "docker",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        b"GET /v1.41/containers/json?all=1 HTTP/1.1\r\nHost: 192.0.2.1:2375\r\nUser-Agent: Docker-Client/20.10.7 (linux)\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nHost: 192.0.2.1:2375\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: 192.0.2.1:2375\r\nContent-Type: application/json\r\nContent-Length: 42\r\n\r\n{\"Image\":\"alpine\",\"Cmd\":[\"chroot\",\"/mnt\"]}",
    ],
};

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    let line = request_line(reader)?;
    Ok(line.is_some_and(|line| line.family == Family::Http && resource(line.target).is_some()))
}

fn understand<'a>(bytes: &'a [u8], out: &mut Understanding<'a>) -> Result<(), End> {
    http1::understand(bytes, out)?;
    let Some(http) = &out.http else { return Ok(()) };
    let first = http.method.as_deref().zip(http.target.as_deref());
    let later = http.pipelined.iter().map(|(method, target)| (method.as_ref(), target.as_ref()));
    let targets: Vec<_> = first.into_iter().chain(later).map(|(_, target)| target.as_bytes().to_vec()).collect();
    let told: Vec<&[u8]> = targets.iter().map(Vec::as_slice).filter(|target| resource(target).is_some()).collect();
    // Clients first ask whether a server answers, and what they are up to next.
    let Some(&telling) = told.iter().find(|target| !is_greeting(target)).or(told.first()) else { return Ok(()) };
    if let Some(version) = version(path(telling)) {
        out.details.text("api_version", version);
    }
    if let Some(resource) = resource(telling) {
        out.details.text("resource", resource);
    }
    out.details.text("operation", operation(telling));
    if told.len() > 1 {
        out.details.texts("operations", told.iter().map(|target| path(target)));
    }
    Ok(())
}

/// The last part of the path.
fn operation(target: &[u8]) -> &[u8] {
    path(target).rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// Reports whether a request is merely the one with which every client begins.
fn is_greeting(target: &[u8]) -> bool {
    matches!(resource(target), Some(b"_ping" | b"version" | b"info"))
}

/// The first part of the path after the version, where the path is one of Docker's.
pub(super) fn resource(target: &[u8]) -> Option<&[u8]> {
    let path = path(target);
    let versioned = version(path);
    let rest = match versioned {
        Some(version) => path.get(version.len() + 2..)?,
        None => path,
    };
    let mut parts = rest.strip_prefix(b"/")?.split(|byte| *byte == b'/');
    let resource = parts.next()?;
    let operation = parts.next_back();
    let decides = match resource {
        b"_ping" => operation.is_none(),
        b"containers" => versioned.is_some() || operation.is_some_and(is_operation),
        b"images" => versioned.is_some() || matches!(operation, Some(b"json" | b"create" | b"search")),
        b"exec" => versioned.is_some() || matches!(operation, Some(b"start" | b"resize" | b"json")),
        b"info" | b"version" | b"events" | b"build" | b"auth" | b"system" | b"networks" | b"volumes" | b"swarm"
        | b"nodes" | b"services" | b"tasks" | b"secrets" | b"configs" | b"plugins" | b"session" | b"distribution" => {
            versioned.is_some()
        }
        _ => false,
    };
    decides.then_some(resource)
}

fn is_operation(operation: &[u8]) -> bool {
    matches!(
        operation,
        b"json"
            | b"create"
            | b"start"
            | b"stop"
            | b"restart"
            | b"kill"
            | b"exec"
            | b"attach"
            | b"logs"
            | b"archive"
            | b"top"
            | b"wait"
    )
}

/// `1.41` of a path that begins with `/v1.41/`.
fn version(path: &[u8]) -> Option<&[u8]> {
    let rest = path.strip_prefix(b"/v")?;
    let version = rest.split(|byte| *byte == b'/').next()?;
    let minor = version.strip_prefix(b"1.")?;
    let digits = (1..=3).contains(&minor.len()) && minor.iter().all(u8::is_ascii_digit);
    (digits && rest.len() > version.len()).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn a_versioned_call_shows_version_resource_and_operation() {
        let understanding = understand(PROTOCOL.samples[0], false);
        let details = serde_json::to_string(&understanding.details).expect("json");
        assert_eq!(details, r#"{"api_version":"1.41","resource":"containers","operation":"json"}"#);
        let http = understanding.http.expect("http facts");
        assert_eq!((http.api.as_deref(), http.host.as_deref()), (Some("docker"), Some("192.0.2.1:2375")));
    }

    #[test]
    fn the_operation_is_what_the_client_is_up_to_and_not_its_ping() {
        let bytes = b"GET /_ping HTTP/1.1\r\nHost: h\r\n\r\nPOST /v1.41/containers/create HTTP/1.1\r\nHost: h\r\n\r\n";
        let details = serde_json::to_string(&understand(bytes, false).details).expect("json");
        let expected = concat!(
            r#"{"api_version":"1.41","resource":"containers","operation":"create","#,
            r#""operations":["/_ping","/v1.41/containers/create"]}"#
        );
        assert_eq!(details, expected);
        let ping = understand(PROTOCOL.samples[1], false).details;
        assert_eq!(serde_json::to_string(&ping).expect("json"), r#"{"resource":"_ping","operation":"_ping"}"#);
    }

    #[test]
    fn paths_that_others_have_too_stay_http() {
        for target in
            ["/version", "/info", "/images/logo.png", "/containers", "/v1/containers/json", "/v1.x/info", "/exec"]
        {
            let request = format!("GET {target} HTTP/1.1\r\n\r\n");
            assert_eq!(understand(request.as_bytes(), false).protocol, Some("http"), "{target}");
        }
    }
}
