//! Columns of a chart over time.

use super::Series;
use crate::filter::Filter;
use crate::moment::Moment;

/// Columns of a chart.
pub(super) struct Columns {
    start: Moment,
    pub(super) step_us: i64,
    points: Vec<u64>,
}

impl Columns {
    pub(super) fn new(from: Moment, to: Moment) -> Self {
        let step_us = Filter::step(from, to);
        let start = from.0.div_euclid(step_us) * step_us;
        let length = to.0.saturating_sub(start).max(0);
        let columns = usize::try_from((length + step_us - 1) / step_us).unwrap_or(0).min(400);
        Self { start: Moment(start), step_us, points: vec![0; columns] }
    }

    pub(super) fn add(&mut self, us: i64, n: u64) {
        let column = usize::try_from((us - self.start.0).div_euclid(self.step_us)).ok();
        if let Some(point) = column.and_then(|column| self.points.get_mut(column)) {
            *point = point.saturating_add(n);
        }
    }

    pub(super) fn series(self) -> Series {
        Series { start: self.start, step_us: self.step_us, points: self.points }
    }
}
