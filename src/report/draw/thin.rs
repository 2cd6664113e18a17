//! Lines with more points than the figure can show, thinned without a change to what is seen.
//!
//! Of the points within half a unit of x the first, lowest, highest and last are kept: a line through them covers the same
//! pixels as the line through all. Where a line is nearly straight, what lies between its ends is left out.

/// Columns to the unit.
const PER_UNIT: f64 = 2.0;

fn column(x: f64) -> i64 {
    (x * PER_UNIT).floor() as i64
}

/// Ranges of indices that share a column; `None` where so few points share one that nothing is gained, or x goes back.
fn columns(xs: &[f64]) -> Option<Vec<std::ops::Range<usize>>> {
    if xs.len() < 64 || xs.windows(2).any(|w| w[1] < w[0]) {
        return None;
    }
    let mut ranges = Vec::new();
    let mut start = 0;
    for i in 1..=xs.len() {
        if i == xs.len() || column(xs[i]) != column(xs[start]) {
            ranges.push(start..i);
            start = i;
        }
    }
    (ranges.len() * 6 < xs.len()).then_some(ranges)
}

/// The points of a line that are enough to draw it; `None` where all are needed.
pub fn line(points: &[(f64, f64)]) -> Option<Vec<(f64, f64)>> {
    let columns = columns(&points.iter().map(|p| p.0).collect::<Vec<_>>())?;
    let mut kept = Vec::with_capacity(4 * columns.len());
    for range in columns {
        let by = |i: &usize, j: &usize| points[*i].1.total_cmp(&points[*j].1);
        let (first, last) = (range.start, range.end - 1);
        let lowest = range.clone().min_by(by).unwrap_or(first);
        let highest = range.max_by(by).unwrap_or(first);
        let mut four = [first, lowest, highest, last];
        four.sort_unstable();
        for (k, i) in four.into_iter().enumerate() {
            if k == 0 || i != four[k - 1] {
                kept.push(points[i]);
            }
        }
    }
    Some(kept)
}

/// The same of a band of (x, bottom, top) with y downwards: the hull of each column.
pub fn band(points: &[(f64, f64, f64)]) -> Option<Vec<(f64, f64, f64)>> {
    let columns = columns(&points.iter().map(|p| p.0).collect::<Vec<_>>())?;
    let mut kept = Vec::with_capacity(2 * columns.len());
    for range in columns {
        let part = &points[range];
        let bottom = part.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
        let top = part.iter().map(|p| p.2).fold(f64::INFINITY, f64::min);
        kept.extend([part[0].0, part[part.len() - 1].0].map(|x| (x, bottom, top)));
    }
    Some(kept)
}

/// How far a line may pass by its points, in units: a twentieth of a pixel cannot be seen.
const CLOSE: f64 = 0.05;

/// The points of a line from left to right that are enough to pass all others at [`CLOSE`], by height. Smooth lines need few.
pub fn straight(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut kept: Vec<(f64, f64)> = points.first().copied().into_iter().collect();
    // Slopes from the last kept point that pass all points since.
    let (mut least, mut most) = (f64::NEG_INFINITY, f64::INFINITY);
    for pair in points.windows(2) {
        let (last, next) = (pair[0], pair[1]);
        let from = kept[kept.len() - 1];
        let slope = |y: f64| (y - from.1) / (next.0 - from.0);
        if !(next.0 > from.0 && (least..=most).contains(&slope(next.1))) {
            if last != from {
                kept.push(last);
            }
            (least, most) = (f64::NEG_INFINITY, f64::INFINITY);
        }
        let from = kept[kept.len() - 1];
        if next.0 > from.0 {
            let slope = |y: f64| (y - from.1) / (next.0 - from.0);
            (least, most) = (least.max(slope(next.1 - CLOSE)), most.min(slope(next.1 + CLOSE)));
        } else {
            // Straight up, or back: every point counts.
            kept.push(next);
        }
    }
    if let Some(last) = points.last().filter(|p| kept.last() != Some(p)) {
        kept.push(*last);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thinned_line_keeps_its_ends_and_every_extreme() {
        let points: Vec<(f64, f64)> =
            (0..100_000).map(|i| (f64::from(i) / 1000.0, (f64::from(i) * 0.7).sin() * f64::from(i % 977))).collect();
        let thin = line(&points).unwrap();
        assert!(thin.len() <= 4 * 200 && thin.len() > 500, "{}", thin.len());
        assert_eq!((thin[0], thin[thin.len() - 1]), (points[0], points[points.len() - 1]));
        assert!(thin.windows(2).all(|w| w[0].0 <= w[1].0));
        for column in 0..200 {
            let inside = |p: &&(f64, f64)| (p.0 * 2.0).floor() == f64::from(column);
            let highest = |of: &[(f64, f64)]| of.iter().filter(inside).map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
            assert_eq!(highest(&thin), highest(&points), "column {column}");
        }
    }

    /// The height of a line at `x`.
    fn at(line: &[(f64, f64)], x: f64) -> f64 {
        let i = line.partition_point(|p| p.0 <= x).clamp(1, line.len() - 1);
        let ((x0, y0), (x1, y1)) = (line[i - 1], line[i]);
        y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    }

    #[test]
    fn a_straightened_line_passes_every_point_and_smooth_ones_need_few() {
        let smooth: Vec<(f64, f64)> = (0..1000).map(|i| (f64::from(i) * 0.4, 100.0 * (f64::from(i) * 0.01).sin())).collect();
        let noisy: Vec<(f64, f64)> = smooth.iter().enumerate().map(|(i, p)| (p.0, p.1 + ((i * 7919) % 13) as f64 * 0.03)).collect();
        for (points, most) in [(&smooth, 150), (&noisy, 1000)] {
            let few = straight(points);
            assert!(few.len() <= most, "{} points", few.len());
            assert_eq!((few[0], few[few.len() - 1]), (points[0], points[points.len() - 1]));
            assert!(few.iter().all(|p| points.contains(p)));
            for p in points {
                assert!((at(&few, p.0) - p.1).abs() <= CLOSE + 1e-9, "{p:?}");
            }
        }
        let corner = [(0.0, 0.0), (1.0, 0.0), (1.0, 5.0), (0.5, 5.0), (0.5, 5.0), (2.0, 5.0)];
        assert_eq!(straight(&corner), [(0.0, 0.0), (1.0, 0.0), (1.0, 5.0), (0.5, 5.0), (0.5, 5.0), (2.0, 5.0)]);
        assert_eq!((straight(&[]).len(), straight(&[(1.0, 2.0)]).len()), (0, 1));
    }

    #[test]
    fn short_lines_and_lines_that_turn_back_stay_as_they_are() {
        assert!(line(&(0..60).map(|i| (f64::from(i) * 1e-3, 0.0)).collect::<Vec<_>>()).is_none());
        assert!(line(&(0..1000).map(|i| (f64::from(i), 0.0)).collect::<Vec<_>>()).is_none());
        assert!(line(&(0..1000).map(|i| (-f64::from(i) * 1e-3, 0.0)).collect::<Vec<_>>()).is_none());
    }

    #[test]
    fn a_thinned_band_still_holds_every_point() {
        let points: Vec<(f64, f64, f64)> = (0..5000).map(|i| (f64::from(i) / 100.0, 10.0 + f64::from(i % 7), -f64::from(i % 5))).collect();
        let thin = band(&points).unwrap();
        assert_eq!(thin.len(), 2 * 100);
        assert!(thin.iter().all(|p| p.1 == 16.0 && p.2 == -4.0));
    }
}
