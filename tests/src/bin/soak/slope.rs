//! Growth by noisy samples: the median of the slopes between all pairs of them
//! (Theil and Sen). A few that are far off do not move it, and unlike two medians it sees growth as soon as it is
//! steady.

/// Growth of `values` from the first to the last of times, which are in order; `None` for fewer than three or of no time.
pub(crate) fn growth(times: &[f64], values: &[f64]) -> Option<f64> {
    let points: Vec<(f64, f64)> = times.iter().copied().zip(values.iter().copied()).collect();
    if points.len() < 3 {
        return None;
    }
    let pairs =
        points.iter().enumerate().flat_map(|(index, from)| points[index + 1..].iter().map(move |to| (from, to)));
    let mut slopes: Vec<f64> =
        pairs.filter(|(from, to)| to.0 > from.0).map(|(from, to)| (to.1 - from.1) / (to.0 - from.0)).collect();
    slopes.sort_unstable_by(f64::total_cmp);
    let median = slopes.get(slopes.len() / 2)?;
    Some(median * (points.last()?.0 - points.first()?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(count: u32) -> Vec<f64> {
        (0..count).map(|step| f64::from(step) * 60.0).collect()
    }

    #[test]
    fn a_steady_growth_is_found_among_samples_that_jump() {
        let values: Vec<f64> = (0..40).map(|step| 20_000.0 + f64::from(step * 100 + step % 7 * 300)).collect();
        let growth = growth(&times(40), &values).expect("samples");
        assert!((growth - 3_900.0).abs() < 400.0, "{growth}");
    }

    #[test]
    fn what_only_jumps_does_not_grow_also_when_it_ends_high() {
        let mut values: Vec<f64> = (0..40).map(|step| 20_000.0 + f64::from(step * 37 % 11 * 100)).collect();
        values[38] = 60_000.0;
        values[39] = 60_000.0;
        let growth = growth(&times(40), &values).expect("samples");
        assert!(growth.abs() < 400.0, "{growth}");
    }

    #[test]
    fn two_samples_say_nothing() {
        assert_eq!(growth(&times(2), &[1.0, 2.0]), None);
        assert_eq!(growth(&[1.0; 4], &[1.0; 4]), None);
    }
}
