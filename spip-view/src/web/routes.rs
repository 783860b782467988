//! The addresses of the pages: one table for HTML (`/ports/22`) and JSON (`/api/v1/ports/22`).

use serde::Serialize;

use crate::data::{
    campaigns, clients, credentials, health, new, now, payloads, places, ports, scans, search, session, sources, tags,
};
use crate::filter::Filter;
use crate::store::{Reader, Result};

/// A page that has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/`
    Now,
    /// `/new`
    New,
    /// `/tags`
    Tags,
    /// `/countries`
    Countries,
    /// `/networks`
    Networks,
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
    (Route::Tags, "/tags"),
    (Route::Countries, "/countries"),
    (Route::Networks, "/networks"),
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
    Tags(tags::TagsPage),
    Countries(places::CountriesPage),
    Networks(places::NetworksPage),
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

/// Returns the address of the JSON of a page.
#[must_use]
pub fn api(path: &str) -> String {
    format!("/api/v1{}", if path == "/" { "/now" } else { path })
}

/// Decodes the parameters of an address. What is no UTF-8 has U+FFFD.
#[must_use]
pub fn parameters(query: &str) -> Vec<(String, String)> {
    /// Parameters of an address: more than there are.
    const MOST: usize = 32;
    form_urlencoded::parse(query.as_bytes())
        .take(MOST)
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .collect()
}

/// Asks for the data of a page. `parts` are the variable parts of its address.
///
/// # Errors
/// What is asked for is not there, or the store does not answer.
pub fn data(route: Route, parts: &[String], reader: &Reader, filter: &Filter) -> Result<Page> {
    let part = |index: usize| parts.get(index).map_or("", String::as_str);
    Ok(match route {
        Route::Now => Page::Now(Box::new(now::page(reader, filter)?)),
        Route::New => Page::New(new::page(reader, filter)?),
        Route::Tags => Page::Tags(tags::page(reader, filter)?),
        Route::Countries => Page::Countries(places::countries(reader, filter)?),
        Route::Networks => Page::Networks(places::networks(reader, filter)?),
        Route::Sources => Page::Sources(sources::list(reader, filter)?),
        Route::Source => Page::Source(Box::new(sources::one(reader, filter, part(0))?)),
        Route::Ports => Page::Ports(ports::list(reader, filter)?),
        Route::Port => Page::Port(Box::new(ports::one(reader, filter, part(0))?)),
        Route::Payloads => Page::Payloads(payloads::list(reader, filter)?),
        Route::Group => Page::Group(Box::new(payloads::group(reader, filter, part(0))?)),
        Route::Payload => Page::Payload(Box::new(payloads::one(reader, part(0))?)),
        Route::Clients => Page::Clients(clients::list(reader, filter)?),
        Route::Fingerprint => Page::Fingerprint(Box::new(clients::one(reader, filter, part(0), part(1))?)),
        Route::Campaigns => Page::Campaigns(campaigns::page(reader, filter)?),
        Route::Credentials => Page::Credentials(credentials::page(reader, filter)?),
        Route::Scans => Page::Scans(scans::page(reader, filter)?),
        Route::Session => Page::Session(Box::new(session::page(reader, part(0))?)),
        Route::Search => Page::Search(search::page(reader, filter)?),
        Route::Health => Page::Health(health::page(reader, filter)?),
    })
}
