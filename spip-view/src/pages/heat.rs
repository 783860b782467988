//! The map of ports over time: all 65,536 at a glance, each row a link that zooms into its ports.

use maud::{Markup, html};

use super::chart::axis;
use super::parts::number;
use crate::data::ports::Heat;
use crate::filter::Filter;
use crate::moment::Moment;

const LEFT: f64 = 46.0;
const WIDTH: f64 = 960.0;
const ROW: f64 = 3.0;
/// Ranges of brightness. A cell's place among them goes with its logarithm: single visits stay visible beside floods.
const SHADES: f64 = 5.0;
/// Rows between two numbers at the side.
const LABEL_EVERY: usize = 16;

/// Draws the map.
pub(super) fn map(heat: &Heat, filter: &Filter) -> Markup {
    let columns = heat.cells.first().map_or(0, Vec::len).max(1);
    let wide = (WIDTH - LEFT) / columns as f64;
    let tall = if heat.cells.len() <= 64 { 4.0 * ROW } else { ROW };
    let height = heat.cells.len() as f64 * tall;
    let ports = |row: usize| {
        let first = u32::from(heat.first_port) + row as u32 * heat.ports_per_row;
        (first, (first + heat.ports_per_row - 1).min(u32::from(heat.last_port)))
    };
    let begin = |index: usize| Moment(heat.start.0.saturating_add(heat.step_us.saturating_mul(index as i64)));
    html! {
        @if heat.most == 0 { p.empty { "No connections in this range." } } @else {
            svg.heat viewBox={ "0 0 " (WIDTH) " " (height + 14.0) } role="img" aria-label="connections by port and time" {
                @for (row, cells) in heat.cells.iter().enumerate() {
                    @let (first, last) = ports(row);
                    @if row % LABEL_EVERY == 0 { text x="0" y=(format!("{:.1}", row as f64 * tall + 8.0)) { (first) } }
                    @if cells.iter().any(|cell| *cell > 0) {
                        @let link = if first == last { filter.link(&format!("/ports/{first}"), &[]) } else { filter.link("/ports", &[("ports", &format!("{first}-{last}"))]) };
                        a href=(link) {
                            @for (column, cell) in cells.iter().enumerate().filter(|(_, cell)| **cell > 0) {
                                rect class=(format!("h{}", shade(*cell, heat.most))) x=(format!("{:.1}", LEFT + column as f64 * wide))
                                    y=(format!("{:.1}", row as f64 * tall)) width=(format!("{wide:.1}")) height=(format!("{tall:.1}")) {
                                    title { (if first == last { format!("port {first}") } else { format!("ports {first} to {last}") }) ", " (begin(column).to_seconds()) ": " (number(*cell)) }
                                }
                            }
                        }
                    }
                }
                text x=(LEFT) y=(height + 12.0) { (axis(begin(0))) }
                text x=(WIDTH) y=(height + 12.0) text-anchor="end" { (axis(begin(columns))) }
            }
        }
    }
}

/// A number's shade, from 1 to 5.
pub(super) fn shade(cell: u64, most: u64) -> u8 {
    let part = (cell as f64).ln_1p() / (most.max(1) as f64).ln_1p();
    (part * SHADES).ceil().clamp(1.0, SHADES) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_visit_is_visible_beside_a_flood() {
        assert_eq!(
            (shade(1, 1), shade(1, 1_000_000), shade(1_000, 1_000_000), shade(1_000_000, 1_000_000)),
            (5, 1, 3, 5)
        );
    }
}
