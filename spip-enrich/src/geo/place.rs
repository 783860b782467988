//! Reads country, city and network out of a value of a MaxMind DB file, by the names that their makers use.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

/// The longest name that is taken of a network or a city: a file that an operator got somewhere is not trusted either.
const NAME_BYTES: usize = 128;

/// Country, city and network of an address, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// ISO 3166-1 code of the country, two upper-case letters.
    pub country: Option<String>,
    /// City, in English.
    pub city: Option<String>,
    /// Number of the autonomous system.
    pub asn: Option<u32>,
    /// Name of the autonomous system or of its owner.
    pub network: Option<String>,
}

impl Place {
    /// Takes over what is not known yet. Number and name of a network stay together: they come from one file, so that no
    /// record pairs the number of one with the name of another.
    pub(super) fn complete(&mut self, other: Self) {
        let Self { country, city, asn, network } = other;
        // A city belongs to its country.
        if self.country.is_none() || self.country == country {
            self.city = self.city.take().or(city);
        }
        self.country = self.country.take().or(country);
        if self.asn.is_none() || self.asn == asn {
            self.network = self.network.take().or(network);
        }
        self.asn = self.asn.or(asn);
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Top)
    }
}

/// The value of an address.
struct Top;

impl<'de> Visitor<'de> for Top {
    type Value = Place;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Place, A::Error> {
        let mut place = Place::default();
        // What names the place of use, before what names the place of registration.
        let mut registered = None;
        while let Some(key) = map.next_key::<&str>()? {
            match key {
                "country" | "country_code" => {
                    let found = code(map.next_value::<Named<'_>>()?);
                    place.country = place.country.take().or(found);
                }
                "registered_country" => registered = code(map.next_value::<Named<'_>>()?),
                "city" => place.city = map.next_value::<Named<'_>>()?.name(),
                "autonomous_system_number" | "asn" => place.asn = map.next_value::<Number>()?.0.or(place.asn),
                "autonomous_system_organization" | "as_name" => {
                    place.network = map.next_value::<Named<'_>>()?.name().or(place.network.take());
                }
                // Flat files of networks call the name of the network so; a nested `name` means something else.
                "name" | "organization" | "isp" => {
                    place.network = place.network.take().or(map.next_value::<Named<'_>>()?.name());
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        place.country = place.country.or(registered);
        Ok(place)
    }
}

/// A text, or a map with `iso_code` and `names.en`.
#[derive(Default)]
struct Named<'a> {
    code: Option<Cow<'a, str>>,
    text: Option<Cow<'a, str>>,
}

impl Named<'_> {
    fn name(self) -> Option<String> {
        let text = self.text?;
        let mut end = text.len().min(NAME_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        (end > 0).then(|| text[..end].to_owned())
    }
}

/// Returns the code of a country, where the value is one and not its name.
fn code(named: Named<'_>) -> Option<String> {
    let code = named.code.or(named.text)?;
    let is_code = code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_alphabetic());
    // ISO 3166-1 leaves ZZ to its users, who mean: unknown.
    (is_code && !code.eq_ignore_ascii_case("zz")).then(|| code.to_ascii_uppercase())
}

impl<'de> Deserialize<'de> for Named<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Named<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a map")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Named<'de>, E> {
                Ok(Named { code: None, text: Some(Cow::Borrowed(text)) })
            }
            fn visit_str<E>(self, text: &str) -> Result<Named<'de>, E> {
                Ok(Named { code: None, text: Some(Cow::Owned(text.to_owned())) })
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<'de>, A::Error> {
                let mut named = Named::default();
                while let Some(key) = map.next_key::<&str>()? {
                    match key {
                        "iso_code" => named.code = map.next_value::<Named<'de>>()?.text,
                        "names" => named.text = map.next_value::<Named<'de>>()?.text.or(named.text),
                        "en" | "name" => named.text = map.next_value::<Named<'de>>()?.text.or(named.text),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(named)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Named<'de>, E> {
                Ok(Named::default())
            }
            fn visit_f64<E>(self, _: f64) -> Result<Named<'de>, E> {
                Ok(Named::default())
            }
            fn visit_bool<E>(self, _: bool) -> Result<Named<'de>, E> {
                Ok(Named::default())
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A number, or a text such as `AS64500`. Zero means unknown.
struct Number(Option<u32>);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Number;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a text")
            }
            fn visit_u64<E>(self, number: u64) -> Result<Number, E> {
                Ok(Number(u32::try_from(number).ok().filter(|number| *number > 0)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Number, E> {
                let digits = text.strip_prefix("AS").or(text.strip_prefix("as")).unwrap_or(text);
                Ok(Number(digits.parse().ok().filter(|number| *number > 0)))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Number, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Number(None))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(json: &str) -> Place {
        serde_json::from_str(json).unwrap()
    }

    fn expect(country: Option<&str>, city: Option<&str>, asn: Option<u32>, network: Option<&str>) -> Place {
        Place { country: country.map(Into::into), city: city.map(Into::into), asn, network: network.map(Into::into) }
    }

    #[test]
    fn fields_are_found_by_the_names_of_every_maker() {
        for (maker, json, expected) in [
            (
                "MaxMind City",
                r#"{"continent":{"code":"EU","names":{"en":"Europe"}},"country":{"geoname_id":1,"iso_code":"SE","names":{"de":"Schweden","en":"Sweden"}},"city":{"names":{"de":"Linköping","en":"Linköping"}},"location":{"latitude":58.4,"accuracy_radius":76},"subdivisions":[{"iso_code":"E"}],"traits":{"is_anycast":true}}"#,
                expect(Some("SE"), Some("Linköping"), None, None),
            ),
            (
                "MaxMind ASN",
                r#"{"autonomous_system_number":64500,"autonomous_system_organization":"Example Net"}"#,
                expect(None, None, Some(64500), Some("Example Net")),
            ),
            (
                "registered only",
                r#"{"registered_country":{"iso_code":"us"},"continent":{"code":"NA"}}"#,
                expect(Some("US"), None, None, None),
            ),
            ("ip-location-db", r#"{"country_code":"CN"}"#, expect(Some("CN"), None, None, None)),
            (
                "IPinfo lite",
                r#"{"asn":"AS64501","as_name":"Example Ltd","as_domain":"example.net","country":"Germany","country_code":"DE","continent":"Europe"}"#,
                expect(Some("DE"), None, Some(64501), Some("Example Ltd")),
            ),
            (
                "IPinfo older",
                r#"{"country":"FR","country_name":"France","asn":"AS64502","name":"Exemple SA"}"#,
                expect(Some("FR"), None, Some(64502), Some("Exemple SA")),
            ),
            ("unknown", r#"{"asn":0,"country_code":"ZZ","city":17}"#, Place::default()),
        ] {
            assert_eq!(place(json), expected, "{maker}");
        }
    }

    #[test]
    fn files_complete_each_other_without_mixing_two_networks() {
        let mut place = expect(Some("DE"), None, Some(64500), None);
        place.complete(expect(Some("FR"), Some("Paris"), Some(64501), Some("Other")));
        assert_eq!(place, expect(Some("DE"), None, Some(64500), None));
        place.complete(expect(Some("DE"), Some("Berlin"), Some(64500), Some("Own")));
        assert_eq!(place, expect(Some("DE"), Some("Berlin"), Some(64500), Some("Own")));
    }

    #[test]
    fn a_name_is_cut_at_a_character() {
        let json = format!(r#"{{"asn":1,"as_name":"{}"}}"#, "ü".repeat(200));
        assert_eq!(place(&json).network.unwrap().len(), NAME_BYTES);
    }
}
