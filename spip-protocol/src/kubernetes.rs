//! The APIs of Kubernetes, asked over HTTP/1: the API server's and the kubelet's.
//!
//! Only paths that belong to Kubernetes alone decide: core resources below `/api/v1/`, groups below `/apis/`, and the
//! kubelet's `/runningpods`. `/api/v1` alone, `/healthz`, `/version` and `/metrics` exist elsewhere and stay `http`.
//! <https://kubernetes.io/docs/reference/using-api/api-concepts/>

use super::http::path;
use super::reader::{End, Reader};
use super::request_line::{Family, request_line};
use super::{Protocol, Understanding, http1};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "kubernetes",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        b"GET /api/v1/namespaces/kube-system/secrets?limit=500 HTTP/1.1\r\nHost: 192.0.2.1:6443\r\nUser-Agent: kubectl/v1.24.0 (linux/amd64) kubernetes/4ce5a89\r\n\r\n",
        b"GET /apis/apps/v1/daemonsets HTTP/1.1\r\nHost: 192.0.2.1:8080\r\n\r\n",
        b"GET /runningpods/ HTTP/1.1\r\nHost: 192.0.2.1:10250\r\n\r\n",
    ],
};

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    let line = request_line(reader)?;
    Ok(line.is_some_and(|line| line.family == Family::Http && resource(line.target).is_some()))
}

fn understand<'a>(bytes: &'a [u8], out: &mut Understanding<'a>) -> Result<(), End> {
    http1::understand(bytes, out)?;
    if let Some(resource) = request_line(&mut Reader::new(bytes))?.and_then(|line| resource(line.target)) {
        out.details.text("group", resource.group);
        if let Some(namespace) = resource.namespace {
            out.details.text("namespace", namespace);
        }
        out.details.text("resource", resource.kind);
    }
    Ok(())
}

/// The parts of a path of Kubernetes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resource<'a> {
    /// API group: `core` for `/api/v1`, `kubelet` for the kubelet's own.
    group: &'a [u8],
    namespace: Option<&'a [u8]>,
    kind: &'a [u8],
}

/// Parses a path, where it is one of Kubernetes.
pub(super) fn resource(target: &[u8]) -> Option<Resource<'_>> {
    let mut parts = path(target).strip_prefix(b"/")?.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
    let (group, first) = match parts.next()? {
        b"runningpods" => (b"kubelet".as_slice(), Some(b"runningpods".as_slice())),
        b"api" if parts.next() == Some(b"v1") => {
            let first = parts.next().filter(|first| is_core(first))?;
            (b"core".as_slice(), Some(first))
        }
        b"apis" => {
            let group = parts.next().filter(|group| is_group(group))?;
            let _version = parts.next();
            (group, parts.next())
        }
        _ => return None,
    };
    let (namespace, kind) = match first {
        Some(b"namespaces") => (parts.next(), parts.next().unwrap_or(b"namespaces")),
        other => (None, other.unwrap_or_default()),
    };
    Some(Resource { group, namespace, kind })
}

fn is_core(resource: &[u8]) -> bool {
    matches!(
        resource,
        b"namespaces"
            | b"pods"
            | b"nodes"
            | b"secrets"
            | b"configmaps"
            | b"serviceaccounts"
            | b"endpoints"
            | b"persistentvolumes"
            | b"persistentvolumeclaims"
            | b"replicationcontrollers"
            | b"componentstatuses"
    )
}

fn is_group(group: &[u8]) -> bool {
    matches!(group, b"apps" | b"batch" | b"extensions" | b"autoscaling" | b"policy") || group.ends_with(b".k8s.io")
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn a_call_shows_group_namespace_and_resource() {
        let understanding = understand(PROTOCOL.samples[0], false);
        let details = serde_json::to_string(&understanding.details).expect("json");
        assert_eq!(details, r#"{"group":"core","namespace":"kube-system","resource":"secrets"}"#);
        assert_eq!(understanding.http.expect("http facts").api.as_deref(), Some("kubernetes"));
        let details = understand(PROTOCOL.samples[1], false).details;
        assert_eq!(serde_json::to_string(&details).expect("json"), r#"{"group":"apps","resource":"daemonsets"}"#);
    }

    #[test]
    fn paths_that_others_have_too_stay_http() {
        for target in ["/api/v1", "/api/v1/users", "/apis/shop/v1/carts", "/healthz", "/version", "/pods"] {
            let request = format!("GET {target} HTTP/1.1\r\n\r\n");
            assert_eq!(understand(request.as_bytes(), false).protocol, Some("http"), "{target}");
        }
    }
}
