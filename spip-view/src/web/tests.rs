//! Each page and its JSON over generated rows, as the router answers them.

use axum::body::{Body, to_bytes};
use axum::http::Request;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use tower::ServiceExt as _;

use super::routes::{ROUTES, api};
use super::server::for_test;
use crate::data::tests::{Scratch, rows};

async fn get(router: &axum::Router, path: &str) -> (u16, String, axum::http::HeaderMap) {
    let request = Request::builder().uri(path).header("host", "127.0.0.1:8765").body(Body::empty()).unwrap();
    let answer = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = answer.into_parts();
    let bytes = to_bytes(body, 64 << 20).await.unwrap();
    (parts.status.as_u16(), String::from_utf8_lossy(&bytes).into_owned(), parts.headers)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(future)
}

#[test]
fn each_page_is_there_over_full_and_empty_stores_with_and_without_a_query() {
    let mut runner = TestRunner::deterministic();
    let rows = proptest::collection::vec(rows(), 80).new_tree(&mut runner).unwrap().current();
    for rows in [&rows[..], &[]] {
        let scratch = Scratch::new();
        let ids = scratch.write(rows, 50);
        let sha256 = rows.iter().find_map(|row| row.sha256).map(hex::encode);
        let group = rows.iter().find_map(|row| row.group.clone()).map(|group| group.hash);
        let source = rows.first().map_or_else(|| "192.0.2.1".to_owned(), |row| row.source.to_string());
        let router = for_test(scratch.store.clone());
        block_on(async {
            for (_, path) in ROUTES {
                let path = path
                    .replace("{source}", &source)
                    .replace("{port}", "22")
                    .replace("{group}", group.as_deref().unwrap_or("0"))
                    .replace("{sha256}", sha256.as_deref().unwrap_or("0"))
                    .replace("{kind}/{value}", "protocol/http")
                    .replace("{session}", ids.first().map_or("2026-01-01-1", String::as_str));
                for query in ["?range=all", "?range=all&q=port:22%20or%20wget", "", "?range=all&sensor=one"] {
                    for path in [format!("{path}{query}"), format!("{}{query}", api(&path))] {
                        let (status, body, headers) = get(&router, &path).await;
                        let may_lack = rows.is_empty();
                        assert!(status == 200 || (may_lack && status == 404), "{path}: {status} {body}");
                        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
                        let policy = headers["content-security-policy"].to_str().unwrap();
                        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
                        if path.starts_with("/api") {
                            serde_json::from_str::<serde_json::Value>(&body)
                                .unwrap_or_else(|error| panic!("{path}: {error}"));
                        }
                    }
                }
            }
        });
    }
}

#[test]
fn a_mistake_in_the_address_is_answered_with_its_place() {
    let scratch = Scratch::new();
    let router = for_test(scratch.store.clone());
    block_on(async {
        let (status, body, _) = get(&router, "/api/v1/search?q=port:x").await;
        assert_eq!(status, 400);
        let error: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(error["query"]["at"], 5);
        for path in ["/api/v1/sessions/x", "/api/v1/ports/70000", "/api/v1/sources/x", "/api/v1/payloads/x", "/nothing"]
        {
            assert_eq!(get(&router, path).await.0, 404, "{path}");
        }
        assert_eq!(get(&router, "/?range=soon").await.0, 400);
    });
}

#[test]
fn an_export_has_every_session_once_and_downloads_are_attachments() {
    let mut runner = TestRunner::deterministic();
    let rows = proptest::collection::vec(rows(), 30).prop_map(|rows| rows).new_tree(&mut runner).unwrap().current();
    let scratch = Scratch::new();
    scratch.write(&rows, 7);
    let router = for_test(scratch.store.clone());
    block_on(async {
        let (_, body, headers) = get(&router, "/api/v1/export?range=all").await;
        assert_eq!(body.lines().count(), 30);
        assert!(headers["content-disposition"].to_str().unwrap().starts_with("attachment; filename=\""));
        let (_, body, _) = get(&router, "/api/v1/export?range=all&format=csv").await;
        assert!(body.starts_with("id,time,"));
        let sha256 = hex::encode(rows.iter().find_map(|row| row.sha256).unwrap());
        let (status, _, headers) = get(&router, &format!("/api/v1/payloads/{sha256}/download?range=all")).await;
        assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, "application/octet-stream"));
        assert_eq!(headers["content-disposition"], format!("attachment; filename=\"{sha256}.bin\"").as_str());
    });
}
