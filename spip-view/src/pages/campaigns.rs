//! *Campaigns*: sources that belong together, and why.

use maud::{Markup, html};

use super::chart::spark;
use super::parts::{facts, inexact, number, port, source, text, time};
use crate::data::campaigns::CampaignsPage;
use crate::filter::Filter;

pub(super) fn draw(page: &CampaignsPage, filter: &Filter) -> Markup {
    html! {
        h1 { "Campaigns" }
        p.note { "Sources that share fingerprints and a payload or ports within the range, largest and newest first." }
        (inexact(page.is_exact))
        @if page.campaigns.is_empty() { p.empty { "No sources that belong together in this range." } }
        @for campaign in &page.campaigns {
            section {
                h2 #(format!("c{}", campaign.id)) {
                    (number(campaign.sources)) " sources, " (number(campaign.connections)) " connections "
                    small { a href=(filter.link("/search", &[("q", &campaign.query)])) { "their sessions" } }
                }
                (spark(&campaign.series.points))
                p { (time(campaign.first)) " to " (time(campaign.last)) " · ports " @for one in &campaign.ports { (port(&one.value, filter)) " " } }
                @if let Some(label) = &campaign.label { p { (text(label)) } }
                details {
                    summary { "Grouped because all of them share this" }
                    (facts(&campaign.shared, filter))
                    p { "Some of them: " @for address in &campaign.examples { (source(*address, filter)) " " } }
                }
            }
        }
    }
}
