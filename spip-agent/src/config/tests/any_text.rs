//! Text that is no configuration, or only looks like one.

use proptest::prelude::*;

use super::*;

/// Lines that look like a configuration and mostly are not one.
fn line_like() -> impl Strategy<Value = String> {
    let known = refusal("zzz = 1").split_once("the keys are ").expect("list").1.to_owned();
    let keys: Vec<String> = known.split(", ").map(str::to_owned).collect();
    let value = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| toml::Value::from(n).to_string()),
        any::<String>().prop_map(|s| toml::Value::from(s).to_string()),
        Just("[\"1-5\", 9, \"\u{20ac}-\"]".to_owned()),
        "[^\n]{0,12}",
    ];
    (prop::sample::select(keys), value).prop_map(|(key, value)| format!("{key} = {value}\n"))
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        let _ = load(&text);
    }

    #[test]
    fn any_lines_load_or_are_refused_with_reasons_and_round_trip(lines in prop::collection::vec(line_like(), 0..6)) {
        match load(&format!("{LEAST}{}", lines.concat())) {
            Ok(Loaded { config, .. }) => prop_assert_eq!(loaded(&config.to_toml()), config),
            Err(error) => prop_assert!(error.to_string().starts_with(FILE)),
        }
    }

    #[test]
    fn any_cut_of_a_valid_file_never_panics(cut in 0..FULL.len()) {
        let _ = load(&FULL[..cut]);
    }

    #[test]
    fn any_seconds_survive_the_round_trip(seconds in 0.001..86_400f64) {
        let config = loaded(&format!("{LEAST}read_timeout_seconds = {seconds}\n"));
        prop_assert_eq!(loaded(&config.to_toml()), config);
    }
}
