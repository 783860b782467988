//! Draws a soak and lists its samples: `soak.svg` and `soak.md` in the directory of `--report`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::Verdict;
use crate::watch::Sample;

const WIDTH: f64 = 760.0;
/// Of one curve, with its heading.
const HEIGHT: f64 = 120.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 12.0;
/// Lines of the table.
const ROWS: usize = 13;

/// One curve: what it shows, and its value in each sample.
type Curve = (&'static str, Vec<f64>);

/// Writes both files.
///
/// # Errors
/// The directory cannot be written to.
pub(crate) fn write(directory: &Path, samples: &[Sample], verdicts: &[Verdict]) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::write(directory.join("soak.svg"), picture(samples))?;
    fs::write(directory.join("soak.md"), table(samples, verdicts))
}

/// The curves, each against minutes.
fn curves(samples: &[Sample]) -> Vec<Curve> {
    let each = |of: fn(&Sample) -> f64| samples.iter().map(of).collect::<Vec<f64>>();
    let rate = |of: fn(&Sample) -> f64| {
        let step = |(before, after): (&Sample, &Sample)| {
            let seconds = after.seconds - before.seconds;
            if seconds > 0.0 { (of(after) - of(before)) / seconds } else { 0.0 }
        };
        let mut rates: Vec<f64> = samples.iter().zip(samples.iter().skip(1)).map(step).collect();
        // The first sample has no earlier one to differ from.
        rates.insert(0, rates.first().copied().unwrap_or_default());
        rates
    };
    vec![
        ("records a second", rate(|sample| sample.recorded as f64)),
        ("processor of the agent, % of one core", rate(|sample| 100.0 * sample.cpu_seconds)),
        ("memory of its own, MB", each(|sample| sample.anonymous_kb as f64 / 1_000.0)),
        ("resident memory, MB", each(|sample| sample.resident_kb as f64 / 1_000.0)),
        ("open descriptors", each(|sample| sample.descriptors as f64)),
    ]
}

fn picture(samples: &[Sample]) -> String {
    let minutes: Vec<f64> = samples.iter().map(|sample| sample.seconds / 60.0).collect();
    let curves = curves(samples);
    let height = HEIGHT * curves.len() as f64 + 20.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let last = minutes.last().copied().unwrap_or_default().max(f64::MIN_POSITIVE);
    for (row, (name, values)) in curves.iter().enumerate() {
        let top = HEIGHT * row as f64;
        let most = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let floor = top + HEIGHT - BOTTOM;
        let x = |minute: f64| LEFT + (WIDTH - LEFT - RIGHT) * minute / last;
        let y = |value: f64| floor - (HEIGHT - TOP - BOTTOM) * value / most;
        let points: Vec<String> =
            minutes.iter().zip(values).map(|(minute, value)| format!("{:.1},{:.1}", x(*minute), y(*value))).collect();
        let _ = writeln!(
            svg,
            "<text x=\"{LEFT}\" y=\"{:.1}\" font-weight=\"bold\">{name}</text>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{most:.0}</text><text x=\"{:.1}\" y=\"{floor:.1}\" text-anchor=\"end\">0</text>\n\
             <path d=\"M{LEFT},{floor:.1}H{:.1}\" stroke=\"#999999\"/>\n\
             <polyline points=\"{}\" fill=\"none\" stroke=\"#1f6fb2\" stroke-width=\"1.5\"/>",
            top + 18.0,
            LEFT - 6.0,
            top + TOP + 8.0,
            LEFT - 6.0,
            WIDTH - RIGHT,
            points.join(" ")
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{:.1}\">0</text><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{last:.0} minutes</text>\n</svg>",
        height - 6.0,
        WIDTH - RIGHT,
        height - 6.0
    );
    svg
}

fn table(samples: &[Sample], verdicts: &[Verdict]) -> String {
    let mut text = "| minute | established by the kernel | records | processor, s | own memory, MB | resident, MB | descriptors |\n\
                    |---|---|---|---|---|---|---|\n"
        .to_owned();
    let step = samples.len().div_ceil(ROWS).max(1);
    let rows = samples.iter().enumerate().filter(|(at, _)| at % step == 0 || at + 1 == samples.len());
    for (_, sample) in rows {
        let _ = writeln!(
            text,
            "| {:.0} | {} | {} | {:.0} | {:.1} | {:.1} | {} |",
            sample.seconds / 60.0,
            sample.established,
            sample.recorded,
            sample.cpu_seconds,
            sample.anonymous_kb as f64 / 1_000.0,
            sample.resident_kb as f64 / 1_000.0,
            sample.descriptors
        );
    }
    text.push('\n');
    for (fine, verdict) in verdicts {
        let _ = writeln!(text, "- {}: {verdict}", if *fine { "holds" } else { "**does not hold**" });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Sample> {
        let sample = |step: u32| Sample {
            seconds: f64::from(step) * 60.0,
            recorded: u64::from(step) * 6_000,
            cpu_seconds: f64::from(step) * 6.0,
            ..Sample::default()
        };
        (0..40).map(sample).collect()
    }

    #[test]
    fn rates_are_those_between_samples() {
        let curves = curves(&samples());
        assert!(curves[0].1.iter().all(|rate| (rate - 100.0).abs() < 0.001), "{:?}", curves[0]);
        assert!(curves[1].1.iter().all(|share| (share - 10.0).abs() < 0.001), "{:?}", curves[1]);
    }

    #[test]
    fn the_table_is_short_has_the_last_sample_and_names_what_failed() {
        let table = table(&samples(), &[(false, "it broke".to_owned())]);
        assert!((12..=16).contains(&table.lines().filter(|line| line.starts_with("| ")).count()), "{table}");
        assert!(table.contains("| 39 | 0 | 234000 |") && table.contains("**does not hold**: it broke"), "{table}");
    }

    #[test]
    fn a_picture_of_nothing_is_still_one() {
        for samples in [Vec::new(), samples()] {
            let picture = picture(&samples);
            assert!(picture.ends_with("</svg>\n") && !picture.contains("NaN") && !picture.contains("inf"), "{picture}");
        }
    }
}
