//! The map of the world: countries in shades by connections, each a link to its page. The outlines are in `assets/world.txt`,
//! which says where they come from.

use std::collections::HashMap;

use maud::{Markup, html};

use super::parts::number;
use crate::data::Top;
use crate::filter::{Filter, encode};

const WORLD: &str = include_str!("../../assets/world.txt");

/// Size of the map in the units of the outlines.
const SIZE: (u32, u32) = (1000, 434);

/// Radius of a country without an outline at this scale.
const DOT: &str = "3";

/// A country on the map.
struct Country {
    code: &'static str,
    name: &'static str,
    /// The outline as a path of SVG, or a place; empty where there is neither.
    shape: &'static str,
}

fn all() -> impl Iterator<Item = Country> {
    WORLD.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut fields = line.split('\t');
        Some(Country { code: fields.next()?, name: fields.next()?, shape: fields.next()? })
    })
}

/// Returns the name of a country by its code of ISO 3166-1.
pub(super) fn name(code: &str) -> Option<&'static str> {
    all().find(|country| country.code == code).map(|country| country.name)
}

/// Draws the map.
pub(super) fn map(countries: &[Top], filter: &Filter) -> Markup {
    let counts: HashMap<&str, u64> = countries.iter().map(|top| (top.value.as_str(), top.count)).collect();
    let most = countries.iter().map(|top| top.count).max().unwrap_or(0);
    let counted = |code: &str| counts.get(code).copied().unwrap_or(0);
    html! {
        svg.world viewBox={ "0 0 " (SIZE.0) " " (SIZE.1) } role="img" aria-label="connections by country" {
            @for country in all().filter(|country| counted(country.code) == 0 && country.shape.starts_with('M')) {
                path d=(country.shape) { title { (country.name) } }
            }
            // Drawn last, so that small ones lie above their neighbours.
            @for country in all().filter(|country| counted(country.code) > 0 && !country.shape.is_empty()) {
                @let count = counted(country.code);
                @let shade = format!("h{}", super::heat::shade(count, most));
                a href=(filter.link(&format!("/clients/country/{}", encode(country.code)), &[])) {
                    @match country.shape.split_once(' ').filter(|_| !country.shape.starts_with('M')) {
                        Some((x, y)) => circle class=(shade) cx=(x) cy=(y) r=(DOT) { title { (country.name) ": " (number(count)) } },
                        None => path class=(shade) d=(country.shape) { title { (country.name) ": " (number(count)) } },
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moment::Moment;

    #[test]
    fn every_country_has_a_code_a_name_and_a_shape_that_is_one() {
        let mut codes: Vec<_> = all().map(|country| country.code).collect();
        assert!(codes.len() > 240 && codes.iter().all(|code| code.len() == 2), "{codes:?}");
        codes.dedup();
        assert_eq!(codes.len(), all().count());
        for country in all() {
            let drawn = country.shape.bytes().all(|b| b.is_ascii_digit() || b" -Mlz".contains(&b));
            assert!(drawn && !country.name.is_empty(), "{}", country.code);
        }
        assert_eq!((name("SE"), name("??")), (Some("Sweden"), None));
    }

    #[test]
    fn countries_are_links_and_what_is_no_country_is_left_out() {
        let top = |value: &str, count| Top { value: value.to_owned(), label: None, count };
        let list = [top("SE", 10), top("SG", 1), top("<b>", 1)];
        let drawn = map(&list, &Filter::last_day(Moment(0))).into_string();
        assert_eq!(drawn.matches("<a href=").count(), 2, "an outline and a dot");
        assert!(drawn.contains("Sweden: 10") && drawn.contains("<circle") && !drawn.contains("<b>"));
    }
}
