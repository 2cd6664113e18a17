//! Rate and distortion of progressive coding: what of the bound has been sent once x_t is known, and what x̂_0 it gives.
//! [Ho20, §4.3 and Table 4]

use super::bound::BoundEstimate;
use super::timestep_plan::TimestepPlan;

/// A receiver that has got as far as x_t.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct RatePoint {
    pub t: u32,
    /// Bits/dim sent so far: L_T and the terms at T, T − 1, …, t + 1.
    pub rate: f64,
    /// Mean squared error of x̂_0(x_t), on the scale of the data.
    pub x0_mse: f64,
}

impl RatePoint {
    /// √MSE on a scale where the data's range, −1 to 1, is 0 to 255.
    pub fn rmse_of_255(&self) -> f64 {
        self.x0_mse.sqrt() * 127.5
    }
}

/// A point for each visit of the plan, from x_T on. Timesteps that were not visited count with the mean of their stratum.
pub fn rate_distortion(estimate: &BoundEstimate, plan: &TimestepPlan) -> Vec<RatePoint> {
    let ranges = plan.ranges();
    let mut points = Vec::with_capacity(ranges.len());
    let mut above = estimate.prior.mean;
    let mut end = ranges.len();
    while end > 0 {
        let (first, last) = ranges[end - 1];
        let start = ranges.iter().position(|r| *r == (first, last)).expect("a visit's range is among the ranges");
        let stratum = &estimate.timesteps[start..end];
        let mean = stratum.iter().map(|(_, _, e)| e.mean_vb()).sum::<f64>() / stratum.len() as f64;
        for (t, _, e) in stratum.iter().rev() {
            points.push(RatePoint { t: t.get(), rate: above + f64::from(last - t.get()) * mean, x0_mse: e.x0_mse.mean });
        }
        above += f64::from(last - first + 1) * mean;
        end = start;
    }
    points
}

/// The points nearest to T − t + 1 = T, 0.9 T, …, 0.1 T: the rows of [Ho20, Table 4], each with its T − t + 1.
pub fn table(points: &[RatePoint], timesteps: usize) -> Vec<(u32, RatePoint)> {
    (1..=10)
        .rev()
        .filter_map(|tenth| {
            let wanted = (timesteps * tenth).div_ceil(10) as i64;
            let t = timesteps as i64 - wanted + 1;
            let point = points.iter().min_by_key(|p| (i64::from(p.t) - t).abs())?;
            Some((timesteps as u32 - point.t + 1, *point))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::bound::TimestepEstimate;
    use crate::diffusion::timestep_plan::Spread;
    use crate::record::Moments;

    /// An estimate whose term at t is 1/t and whose error of x̂_0 is t.
    fn estimate(plan: &TimestepPlan) -> BoundEstimate {
        let at = |x: f64| Moments { n: 5, mean: x, m2: 0.0 };
        let timesteps = plan
            .visits()
            .iter()
            .map(|v| {
                let t = f64::from(v.t.get());
                (v.t, v.weight, TimestepEstimate { mse: at(0.0), x0_mse: at(t), vb: at(1.0 / t), n_nonfinite: 0 })
            })
            .collect();
        BoundEstimate {
            timesteps,
            floors: Vec::new(),
            prior: at(0.25),
            per_example_decoder: at(0.0),
            per_example_kl: at(0.0),
            per_example: at(0.0),
            per_example_excess: Moments::default(),
            choice_variance: 0.0,
            excess_choice_variance: f64::NAN,
            examples: 5,
            draws: 1,
        }
    }

    #[test]
    fn the_rate_is_what_has_been_sent_before_x_t() {
        let plan = TimestepPlan::all(20, 1);
        let points = rate_distortion(&estimate(&plan), &plan);
        assert_eq!(points.len(), 20);
        assert_eq!((points[0].t, points[0].rate, points[0].x0_mse), (20, 0.25, 20.0), "x_T costs the prior term alone");
        for point in &points {
            let sent: f64 = 0.25 + (point.t + 1..=20).map(|t| 1.0 / f64::from(t)).sum::<f64>();
            assert!((point.rate - sent).abs() < 1e-12);
        }
        // At t = 1 all but the decoder has been sent.
        assert!((points[19].rate - (estimate(&plan).bits_per_dim() - 1.0)).abs() < 1e-12);
        assert!((points[19].rmse_of_255() - 127.5).abs() < 1e-12);
        let rows = table(&points, 20);
        assert_eq!(rows.iter().map(|(reverse, p)| (*reverse, p.t)).collect::<Vec<_>>()[..2], [(20, 1), (18, 3)]);
        assert_eq!((rows.len(), rows[9].0, rows[9].1.t), (10, 2, 19));
    }

    #[test]
    fn strata_stand_in_for_the_timesteps_that_were_not_visited() {
        let all = TimestepPlan::all(400, 1);
        let exact = rate_distortion(&estimate(&all), &all);
        let plan = TimestepPlan::dense_head(400, 20, 30, 3, Spread::Timesteps);
        for point in rate_distortion(&estimate(&plan), &plan) {
            let wanted = exact.iter().find(|p| p.t == point.t).unwrap();
            assert!((point.rate - wanted.rate).abs() < 0.05, "{point:?} {wanted:?}");
        }
    }
}
