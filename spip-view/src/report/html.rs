//! The report as one HTML page: no script, nothing from elsewhere, so that it can be mailed. Everything that a client sent
//! is escaped by the templates.

use maud::{DOCTYPE, Markup, html};

use super::Report;
use super::text::{change, lists, named, shown};
use crate::data::{Series, Top};

/// Width and height of the chart.
const CHART: (usize, usize) = (720, 80);

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;font-variant-numeric:tabular-nums;color:#1a1d21;background:#fff;\
max-width:720px;margin:2rem auto;padding:0 1rem}h1{font-size:1.3rem;margin:0}h2{font-size:1rem;margin:1.6rem 0 .4rem}\
p{color:#5b6470;margin:.2rem 0 1rem}table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.15rem .6rem .15rem 0;\
border-bottom:1px solid #e6e8eb;vertical-align:top}.n{text-align:right;white-space:nowrap;width:7rem}code{font:13px/1.4 ui-monospace,\
monospace;overflow-wrap:anywhere}svg{width:100%;height:auto}rect{fill:#2f6fb0}@media(prefers-color-scheme:dark){body{color:#dfe3e8;\
background:#15181c}td,th{border-color:#2a2f36}p{color:#98a2ae}rect{fill:#6fa8dc}}";

/// Returns the page.
#[must_use]
pub fn page(report: &Report) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                title { "Spip report " (report.to.day()) }
                style { (maud::PreEscaped(STYLE)) }
            }
            body {
                h1 { "Spip report" }
                p { (report.from.to_seconds()) " to " (report.to.to_seconds()) }
                table {
                    @for (name, number) in named(&report.numbers) {
                        tr {
                            td { (name.replace('_', "-")) }
                            td.n { (number) }
                            @if let Some(before) = &report.before {
                                td.n { (named(before).iter().find(|(own, _)| *own == name).map_or_else(String::new, |(_, before)| change(number, *before))) }
                            }
                        }
                    }
                }
                h2 { "Connections" }
                (chart(&report.series))
                @for (title, list) in lists(report) {
                    @if !list.is_empty() {
                        h2 { (title) }
                        (table(list))
                    }
                }
                @for section in &report.new {
                    h2 { "New: " (section.kind.name().replace('_', " ")) " (" (section.total.value) ")" }
                    table {
                        @for item in &section.items {
                            tr {
                                td { (item.first.to_seconds()) }
                                td { code { (shown(item.label.as_ref().unwrap_or(&item.value))) } }
                                td { (item.source) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn table(list: &[Top]) -> Markup {
    html! {
        table {
            @for top in list {
                tr {
                    td.n { (top.count) }
                    td { code { (shown(top.label.as_ref().unwrap_or(&top.value))) } }
                }
            }
        }
    }
}

fn chart(series: &Series) -> Markup {
    let (width, height) = CHART;
    let most = series.points.iter().copied().max().unwrap_or(0).max(1);
    let columns = series.points.len().max(1);
    let step = width as f64 / columns as f64;
    html! {
        svg viewBox={ "0 0 " (width) " " (height) } role="img" aria-label="connections over time" {
            @for (index, point) in series.points.iter().enumerate() {
                @let tall = (*point as f64 / most as f64 * height as f64).max(if *point > 0 { 1.0 } else { 0.0 });
                rect x=(format!("{:.1}", index as f64 * step)) y=(format!("{:.1}", height as f64 - tall))
                    width=(format!("{:.1}", (step - 1.0).max(0.5))) height=(format!("{tall:.1}")) {}
            }
        }
    }
}
