//! Charts over time as SVG, each with the same numbers as a table.

use maud::{Markup, html};

use super::parts::{number, time};
use crate::data::Series;
use crate::moment::Moment;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 110.0;
/// Room for the scale above the columns.
const TOP: f64 = 14.0;

/// Draws columns over time.
pub(super) fn chart(name: &str, series: &Series) -> Markup {
    let most = series.points.iter().copied().max().unwrap_or(0);
    let width = WIDTH / series.points.len().max(1) as f64;
    let begin = |index: usize| Moment(series.start.0.saturating_add(series.step_us.saturating_mul(index as i64)));
    html! {
        @if most == 0 { p.empty { "No " (name) " in this range." } } @else {
            svg.chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT + TOP + 14.0) } role="img" aria-label=(format!("{name} over time, {most} at most in a column")) {
                text x="0" y="10" { (number(most)) }
                @for (index, point) in series.points.iter().enumerate().filter(|(_, point)| **point > 0) {
                    @let tall = (*point as f64 / most as f64 * HEIGHT).max(1.0);
                    rect x=(format!("{:.1}", index as f64 * width)) y=(format!("{:.1}", TOP + HEIGHT - tall))
                        width=(format!("{:.1}", (width - 1.0).max(0.6))) height=(format!("{tall:.1}")) {
                        title { (begin(index).to_seconds()) ": " (number(*point)) }
                    }
                }
                text.axis x="0" y=(HEIGHT + TOP + 12.0) { (axis(begin(0))) }
                text.axis x=(WIDTH) y=(HEIGHT + TOP + 12.0) text-anchor="end" { (axis(begin(series.points.len()))) }
            }
            details {
                summary { (name) " as a table" }
                table {
                    tbody {
                        @for (index, point) in series.points.iter().enumerate().filter(|(_, point)| **point > 0) {
                            tr { td.t { (time(begin(index))) } td.n { (number(*point)) } }
                        }
                    }
                }
            }
        }
    }
}

/// Writes a moment at an axis, to the minute.
pub(super) fn axis(moment: Moment) -> String {
    let text = moment.to_seconds().replace('T', " ");
    text.get(..16).unwrap_or(&text).to_owned()
}

/// Draws a small chart without a scale, beside a number that stands in a table.
pub(super) fn spark(points: &[u64]) -> Markup {
    let most = points.iter().copied().max().unwrap_or(0).max(1);
    let width = 100.0 / points.len().max(1) as f64;
    html! {
        svg.spark viewBox="0 0 100 14" preserveAspectRatio="none" aria-hidden="true" {
            @for (index, point) in points.iter().enumerate().filter(|(_, point)| **point > 0) {
                @let tall = (*point as f64 / most as f64 * 14.0).max(1.0);
                rect x=(format!("{:.2}", index as f64 * width)) y=(format!("{:.1}", 14.0 - tall))
                    width=(format!("{:.2}", (width * 0.9).max(0.2))) height=(format!("{tall:.1}")) {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_a_column_and_a_line_of_its_table_for_each_number() {
        let series = Series { start: Moment(0), step_us: 3_600_000_000, points: vec![0, 5, 0, 10] };
        let drawn = chart("connections", &series).into_string();
        assert_eq!(drawn.matches("<rect").count(), 2);
        assert_eq!(drawn.matches("<tr>").count(), 2);
        assert!(drawn.contains("1970-01-01T03:00:00Z: 10"));
        assert!(chart("connections", &Series { points: vec![], ..series }).into_string().contains("No connections"));
    }
}
