//! The addresses of the pages: one table for HTML (`/ports/22`) and JSON (`/api/v1/ports/22`).

use serde::Serialize;

use crate::data::{
    campaigns, clients, credentials, health, new, now, payloads, ports, scans, search, session, sources,
};

/// A page that has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/`
    Now,
    /// `/new`
    New,
    /// `/sources`
    Sources,
    /// `/sources/{source}`
    Source,
    /// `/ports`
    Ports,
    /// `/ports/{port}`: `22` or, encoded, `53/udp`.
    Port,
    /// `/payloads`
    Payloads,
    /// `/payloads/groups/{group}`
    Group,
    /// `/payloads/{sha256}`
    Payload,
    /// `/clients`
    Clients,
    /// `/clients/{kind}/{value}`
    Fingerprint,
    /// `/campaigns`
    Campaigns,
    /// `/credentials`
    Credentials,
    /// `/scans`
    Scans,
    /// `/sessions/{session}`
    Session,
    /// `/search`
    Search,
    /// `/health`
    Health,
}

/// All routes with their addresses. JSON is at `/api/v1` before the same, *Now* at `/api/v1/now`.
pub const ROUTES: &[(Route, &str)] = &[
    (Route::Now, "/"),
    (Route::New, "/new"),
    (Route::Sources, "/sources"),
    (Route::Source, "/sources/{source}"),
    (Route::Ports, "/ports"),
    (Route::Port, "/ports/{port}"),
    (Route::Payloads, "/payloads"),
    (Route::Group, "/payloads/groups/{group}"),
    (Route::Payload, "/payloads/{sha256}"),
    (Route::Clients, "/clients"),
    (Route::Fingerprint, "/clients/{kind}/{value}"),
    (Route::Campaigns, "/campaigns"),
    (Route::Credentials, "/credentials"),
    (Route::Scans, "/scans"),
    (Route::Session, "/sessions/{session}"),
    (Route::Search, "/search"),
    (Route::Health, "/health"),
];

/// The data of a page, as JSON has it and HTML is drawn from.
#[derive(Debug, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "each variant is the page of the route with the same name")]
pub enum Page {
    Now(Box<now::NowPage>),
    New(new::NewPage),
    Sources(sources::SourcesPage),
    Source(Box<sources::SourcePage>),
    Ports(ports::PortsPage),
    Port(Box<ports::PortPage>),
    Payloads(payloads::PayloadsPage),
    Group(Box<payloads::GroupPage>),
    Payload(Box<payloads::PayloadPage>),
    Clients(clients::ClientsPage),
    Fingerprint(Box<clients::FingerprintPage>),
    Campaigns(campaigns::CampaignsPage),
    Credentials(credentials::CredentialsPage),
    Scans(scans::ScansPage),
    Session(Box<session::SessionPage>),
    Search(search::SearchPage),
    Health(health::HealthPage),
}
