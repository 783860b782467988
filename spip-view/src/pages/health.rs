//! *Health*: sensors and their runs, what is missing, the logs that are read, and the store.

use maud::{Markup, html};

use super::now::messages;
use super::parts::{bytes, maybe_time, number, text, time};
use super::shown;
use crate::data::health::{HealthPage, Log, Run, Sensor};
use crate::filter::Filter;

pub(super) fn draw(page: &HealthPage, filter: &Filter) -> Markup {
    let store = &page.store;
    html! {
        h1 { "Health" }
        h2 { "Sensors" }
        @if page.sensors.is_empty() { p.empty { "No sensor has sent a record yet." } }
        @for sensor in &page.sensors { (one_sensor(sensor, filter)) }
        h2 { "Logs" }
        @for log in &page.logs { (one_log(log)) }
        h2 { "Store" }
        p { code { (shown(&store.directory)) } ": " (bytes(store.bytes)) @if store.keep_bytes < u64::MAX { " of " (bytes(store.keep_bytes)) ", at most " (store.keep_days) " days" } "; " (bytes(store.free_bytes)) " free on its disk" }
        div.wide {
            table {
                thead { tr { th { "day" } th.n { "session records" } th.n { "size" } } }
                tbody { @for day in &store.days { tr { td.t { (day.day) } td.n { (number(day.sessions)) } td.n { (bytes(day.bytes)) } } } }
            }
        }
        (messages(&page.messages, "Messages of the sensors"))
        @if !page.events.is_empty() {
            h2 { "What this program did" }
            table { tbody { @for event in &page.events { tr { td.t { (time(event.time)) } td { (shown(&event.text)) } } } } }
        }
    }
}

fn one_sensor(sensor: &Sensor, filter: &Filter) -> Markup {
    html! {
        h2 {
            a href=(filter.link("/", &[("sensor", &sensor.name)])) { (shown(&sensor.name)) } " "
            small { (number(sensor.rejected)) " refused by a limit · " @if sensor.missing > 0 { span.bad { (number(sensor.missing)) " records missing" } } @else { "no record missing" } }
        }
        div.wide {
            table {
                thead { tr { th { "run" } th { "first record" } th { "last record" } th.n { "records" } th.n { "last number" } th.n { "missing" } th { "which" } th.n { "twice" } } }
                tbody { @for run in &sensor.runs { (one_run(run)) } }
            }
        }
    }
}

fn one_run(run: &Run) -> Markup {
    let ranges: Vec<_> = run
        .missing_ranges
        .iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    html! {
        tr {
            td { code { (if run.run.is_empty() { "not named".to_owned() } else { shown(&run.run) }) } }
            td.t { (time(run.first)) }
            td.t { (time(run.last)) }
            td.n { (number(run.records)) }
            td.n { (number(run.last_seq)) }
            td.n { (number(run.missing)) }
            td.x { (ranges.join(", ")) }
            td.n { (number(run.duplicates)) }
        }
    }
}

fn one_log(log: &Log) -> Markup {
    html! {
        p {
            code { (shown(&log.path)) } ": " (number(log.lines)) " lines, " @if !log.position.is_empty() { "at " (shown(&log.position)) ", " } "last read " (maybe_time(log.last_read))
            @if log.overlong > 0 { " · " (number(log.overlong)) " too long" }
            @if log.lost_files > 0 { " · " span.bad { (number(log.lost_files)) " files went before they were read" } }
            @if log.foreign > 0 { " · " (number(log.foreign)) " foreign lines" @if let Some(reason) = &log.foreign_reason { ", the newest: " (text(reason)) } }
        }
    }
}
