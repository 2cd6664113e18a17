//! The samplers against published closed loops, and against what the closed-form denoisers make them: linear maps of
//! Gaussians, whose moments are computed here by recursion.

use super::gaussian_oracle::GaussianOracle;
use super::oracle::{Component, MixtureOracle};
use super::respacing::{Respaced, Spacing, Steps};
use super::sampling::{Ddim, DdimEpsilon, Drawn, Sampler, Walk, slerp};
use super::*;
use crate::data::{Encoding, Shape};
use crate::record::Moments;
use crate::rng::{EVALUATION_SEED, Purpose, stream};
use crate::units::Timestep;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

static GO: AtomicBool = AtomicBool::new(false);

pub(super) fn spec(schedule: ScheduleKind, timesteps: u32, variance: VarianceType) -> DiffusionSpec {
    DiffusionSpec::plain(schedule, timesteps, variance)
}

pub(super) fn point(dims: usize) -> Shape {
    Shape { height: 1, width: 1, channels: dims }
}

pub(super) fn walk<'a>(steps: &'a Respaced, sampler: Sampler<'a>) -> Walk<'a> {
    Walk { steps, sampler, seed: EVALUATION_SEED, frames: &[], stop: &GO }
}

/// `got` is `expected` within 4.5 standard errors.
pub(super) fn within(got: f64, expected: f64, error: f64, what: &str) {
    assert!((got - expected).abs() < 4.5 * error, "{what}: {got} is {} standard errors from {expected}", (got - expected) / error);
}

/// The moments of `x` are those of a normal distribution.
pub(super) fn assert_normal(x: impl Iterator<Item = f64>, mean: f64, variance: f64, what: &str) {
    let mut m = Moments::default();
    x.for_each(|x| m.push(x));
    let n = m.n as f64;
    within(m.mean, mean, (variance / n).sqrt(), &format!("{what}, mean"));
    within(m.variance(), variance, variance * (2.0 / (n - 1.0)).sqrt(), &format!("{what}, variance"));
}

/// x · i / (i + 1) with i = t − 1: the network of diffusers' tests.
struct Loop;

impl Denoiser for Loop {
    fn predict(&self, x_t: &[f32], t: &[Timestep], output: &mut [f32]) -> Result<(), DenoiserError> {
        let i = t[0].index() as f64;
        output.iter_mut().zip(x_t).for_each(|(o, x)| *o = (f64::from(*x) * i / (i + 1.0)) as f32);
        Ok(())
    }

    fn batch(&self) -> usize {
        1
    }
}

/// Sums of |x| after ten steps of DDIM; `tests/reference/sampling.py` prints them. Those in diffusers' tests come of
/// cumulative products in single precision, which is all that keeps ours from them.
#[test]
fn the_closed_loop_of_ddim_is_golden() {
    let line = |first: f64| (0..1000).map(|i| first + (0.02 - first) * f64::from(i) / 999.0).collect::<Vec<f64>>();
    let sum = |prediction, schedule: &NoiseSchedule, last_first: bool| {
        let spec = DiffusionSpec { prediction, clip_x0: true, ..spec(ScheduleKind::Linear, 1000, VarianceType::FixedLarge) };
        let shape = Shape { height: 16, width: 16, channels: 3 };
        let timesteps = respacing::kept(1000, &Steps::Count(10), Spacing::Leading).unwrap();
        assert_eq!(timesteps.iter().map(|t| t.index()).collect::<Vec<_>>(), (0..10).map(|k| 100 * k).collect::<Vec<_>>());
        let encoding = Encoding::Discrete { levels: 256 };
        let short = schedule.respaced(&timesteps).unwrap();
        let of = |schedule| Diffusion::Gaussian(GaussianDiffusion::with_schedule(&spec, schedule, shape, encoding));
        let steps = Respaced { trained: of(schedule.clone()), process: of(short), timesteps };
        let ddim =
            Ddim { epsilon: DdimEpsilon::Raw, last_alpha_bar: if last_first { schedule.alpha_bars[0] } else { 1.0 }, ..Ddim::new(0.0) };
        let x: Vec<f32> = (0..768).map(|i| (f64::from(i) / 768.0) as f32).collect();
        let drawn = walk(&steps, Sampler::Ddim(ddim)).decode(&Loop, x).unwrap();
        drawn.x.iter().map(|x| f64::from(*x).abs()).sum::<f64>()
    };
    let exact = |first| NoiseSchedule::from_betas(line(first));
    let single = |first| {
        let mut schedule = exact(first);
        let mut product = 1.0f32;
        for (beta, alpha_bar) in line(first).iter().zip(&mut schedule.alpha_bars) {
            product *= 1.0 - *beta as f32;
            *alpha_bar = product.into();
        }
        schedule
    };
    for (prediction, schedule, last_first, golden) in [
        (Prediction::Epsilon, exact(1e-4), false, 172.0065),
        (Prediction::V, exact(1e-4), false, 52.5301),
        (Prediction::Epsilon, exact(0.01), false, 149.8295),
        (Prediction::Epsilon, exact(0.01), true, 149.0784),
        (Prediction::Epsilon, single(1e-4), false, 172.0067),
        (Prediction::V, single(1e-4), false, 52.5302),
    ] {
        let sum = sum(prediction, &schedule, last_first);
        assert!((sum - golden).abs() < 0.75e-4, "{prediction} {last_first}: {sum}, not {golden}");
    }
}

#[test]
fn the_variances_of_ddim_and_of_the_posterior_are_golden() {
    let s = NoiseSchedule::new(ScheduleKind::Linear, 1000).unwrap();
    let variance = |t: usize, before: usize| Ddim::new(1.0).variance(s.alpha_bars[t], s.alpha_bars[before]);
    assert!((variance(420, 400) - 0.147720).abs() < 1e-6 && (variance(980, 960) - 0.324605).abs() < 1e-6);
    assert!((s.posterior_variances[487] - 0.009792).abs() < 1e-6 && (s.posterior_variances[999] - 0.02).abs() < 1e-6);
    // With η = 1 and no step left out it is β̃_t. [Song21, §4.1]
    for t in [1, 10, 500, 999] {
        assert!((variance(t, t - 1) / s.posterior_variances[t] - 1.0).abs() < 1e-9, "{t}");
    }
}

#[test]
fn fewer_steps_have_the_schedule_of_what_is_left_and_the_network_is_told_its_own_t() {
    let spec = spec(ScheduleKind::Cosine, 300, VarianceType::LearnedRange);
    let steps = Respaced::new(&spec, point(1), Encoding::Continuous, &"10,15,20".parse().unwrap(), Spacing::Iddpm).unwrap();
    let whole = NoiseSchedule::new(ScheduleKind::Cosine, 300).unwrap();
    let short = steps.process.schedule();
    assert_eq!((short.timesteps(), steps.timesteps.len(), steps.below(0), steps.below(1)), (45, 45, 0, 1));
    for (k, t) in steps.timesteps.iter().enumerate() {
        assert!((short.alpha_bars[k] / whole.alpha_bars[t.index()] - 1.0).abs() < 1e-9);
    }
    // The network says the upper end of the range: the β of the short schedule, not of the long one.
    let mut step = gaussian::ReverseStep { x0: vec![0.3], ..Default::default() };
    steps.process.gaussian().unwrap().p_mean_variance(Timestep::from_index(20), &[0.1], &[0.2, 1.0], &mut step);
    assert!((step.log_variance[0].exp() / short.betas[20] - 1.0).abs() < 1e-9 && short.betas[20] > 3.0 * whole.betas[140]);

    struct Told(Mutex<Vec<u32>>);
    impl Denoiser for Told {
        fn predict(&self, _: &[f32], t: &[Timestep], output: &mut [f32]) -> Result<(), DenoiserError> {
            self.0.lock().unwrap().push(t[0].get());
            output.fill(0.0);
            Ok(())
        }
        fn batch(&self) -> usize {
            8
        }
    }
    let told = Told(Mutex::new(Vec::new()));
    walk(&steps, Sampler::Ancestral).draw(&told, 1).unwrap();
    let expected: Vec<u32> = steps.timesteps.iter().rev().map(|t| t.get()).collect();
    assert_eq!(*told.0.lock().unwrap(), expected);
    let spread: Vec<u32> = steps.spread(4).iter().map(|t| t.get()).collect();
    assert!(spread.len() == 4 && spread[0] == 300 && spread[3] == 1 && spread.windows(2).all(|w| w[0] > w[1]), "{spread:?}");
    assert_eq!(steps.spread(1000).len(), 45);
}

/// Mean and variance of the end of a walk under the oracle of N(m, s²), whose every step is x ↦ a x + b + σ z.
fn recursion(steps: &Respaced, (m, s2): (f64, f64), eta: Option<f64>, variance: VarianceType) -> (f64, f64) {
    let schedule = steps.process.schedule();
    let (low, _) = schedule.reverse_log_variances(variance, FirstLogVariance::Copy);
    let (mut mean, mut spread) = (0.0, 1.0);
    for i in (0..schedule.timesteps()).rev() {
        let (ab, prev) = (schedule.alpha_bars[i], schedule.alpha_bars_prev[i]);
        let gain = ab.sqrt() * s2 / (ab * s2 + 1.0 - ab);
        // x̂_0 = gain · x + offset.
        let offset = m - gain * ab.sqrt() * m;
        let (from_x0, from_xt, noise) = match eta {
            None => (schedule.posterior_x0_coefs[i], schedule.posterior_xt_coefs[i], low[i].exp()),
            Some(eta) => {
                let noise = Ddim::new(eta).variance(ab, prev);
                let direction = ((1.0 - prev - noise).max(0.0) / (1.0 - ab)).sqrt();
                (prev.sqrt() - direction * ab.sqrt(), direction, noise)
            }
        };
        let a = from_x0 * gain + from_xt;
        mean = a * mean + from_x0 * offset;
        spread = a * a * spread + if i == 0 { 0.0 } else { noise };
    }
    (mean, spread)
}

#[test]
fn samples_of_a_gaussian_have_the_moments_that_the_sampler_makes_and_these_approach_the_data() {
    let (m, s2, n) = (0.7, 0.09, 4000);
    for variance in [VarianceType::FixedSmall, VarianceType::FixedLarge] {
        let spec = spec(ScheduleKind::Cosine, 500, variance);
        let process = Diffusion::new(&spec, point(1), Encoding::Continuous).unwrap();
        let oracle = MixtureOracle::new(process.gaussian().unwrap(), vec![Component { weight: 1.0, mean: vec![m], variance: s2 }]);
        for eta in [None, Some(0.0), Some(0.5), Some(1.0)] {
            let mut off = Vec::new();
            for count in [10, 50, 500] {
                let steps = Respaced::new(&spec, point(1), Encoding::Continuous, &Steps::Count(count), Spacing::Iddpm).unwrap();
                let sampler = eta.map_or(Sampler::Ancestral, |eta| Sampler::Ddim(Ddim::new(eta)));
                let (mean, spread) = recursion(&steps, (m, s2), eta, variance);
                let x = walk(&steps, sampler).draw(&oracle, n).unwrap().x;
                assert_normal(x.iter().map(|x| f64::from(*x)), mean, spread, &format!("{variance} {eta:?} {count} steps"));
                off.push((mean - m).abs() / s2.sqrt() + (spread / s2 - 1.0).abs());
            }
            assert!(off[0] > 2.0 * off[1] && off[1] > 2.0 * off[2] && off[2] < 0.05, "{variance} {eta:?}: {off:?}");
        }
    }
}

fn two_components() -> Vec<Component> {
    vec![Component { weight: 0.7, mean: vec![1.0, 0.0], variance: 0.04 }, Component { weight: 0.3, mean: vec![-1.0, 0.5], variance: 0.01 }]
}

#[test]
fn ddim_samples_follow_the_mixture_and_are_inverted_the_better_the_more_steps() {
    let spec = spec(ScheduleKind::Cosine, 1000, VarianceType::FixedSmall);
    let process = Diffusion::new(&spec, point(2), Encoding::Continuous).unwrap();
    let oracle = MixtureOracle::new(process.gaussian().unwrap(), two_components());
    let n = 2000;
    let mut errors = Vec::new();
    for count in [10, 30, 100, 300] {
        let steps = Respaced::new(&spec, point(2), Encoding::Continuous, &Steps::Count(count), Spacing::Iddpm).unwrap();
        let w = walk(&steps, Sampler::Ddim(Ddim::new(0.0)));
        let x = w.draw(&oracle, n).unwrap().x;
        if count == 300 {
            let right: Vec<&[f32]> = x.chunks_exact(2).filter(|p| p[0] > 0.0).collect();
            within(right.len() as f64 / n as f64, 0.7, (0.21 / n as f64).sqrt(), "share of the first component");
            let mut first = Moments::default();
            right.iter().for_each(|p| first.push(p[0].into()));
            assert!((first.mean - 1.0).abs() < 0.03 && (first.variance() / 0.04 - 1.0).abs() < 0.15, "{first:?}");
        }
        // Points of the data, up and down again.
        let mut data = vec![0.0; 400];
        stream(3, Purpose::ToyData, 0).normals(0, &mut data);
        for (i, p) in data.chunks_exact_mut(2).enumerate() {
            let c = &two_components()[usize::from(i % 10 >= 7)];
            p.iter_mut().zip(&c.mean).for_each(|(x, m)| *x = (m + c.variance.sqrt() * f64::from(*x)) as f32);
        }
        let latents = w.encode(&oracle, &Ddim::new(0.0), &data).unwrap();
        let back = w.decode(&oracle, latents.clone()).unwrap().x;
        let mut off: Vec<f64> = back.iter().zip(&data).map(|(a, b)| f64::from(a - b).abs()).collect();
        off.sort_by(f64::total_cmp);
        errors.push(off[off.len() / 2]);
        if count == 300 {
            let mut all = Moments::default();
            latents.iter().for_each(|x| all.push((*x).into()));
            assert!(off[off.len() - 1] < 0.2, "the worst is {}", off[off.len() - 1]);
            assert!(all.mean.abs() < 0.2 && (all.variance() - 1.0).abs() < 0.25, "latents are noise: {all:?}");
        }
    }
    // The median: with few steps, a point between the components may come back at the other one.
    assert!(errors.windows(2).all(|e| e[0] > 1.8 * e[1]) && errors[3] < 0.01, "{errors:?}");
}

#[test]
fn a_sample_depends_on_seed_and_number_alone_and_frames_show_its_way() {
    let spec = spec(ScheduleKind::Cosine, 40, VarianceType::FixedLarge);
    let process = Diffusion::new(&spec, point(2), Encoding::Continuous).unwrap();
    let oracle = MixtureOracle::new(process.gaussian().unwrap(), two_components());
    let steps = Respaced::all(&process);
    let all = walk(&steps, Sampler::Ancestral);
    let many = all.draw(&oracle, 300).unwrap().x;
    assert_eq!(many[..14], all.draw(&oracle, 7).unwrap().x);
    assert_eq!(many, sampling::ancestral(&process, &oracle, 300, &GO).unwrap());
    assert_ne!(many[..14], Walk { seed: 1, ..all }.draw(&oracle, 7).unwrap().x);

    let frames = steps.spread(5);
    let Drawn { x, frames } = Walk { frames: &frames, ..all }.draw(&oracle, 300).unwrap();
    assert_eq!(x, many);
    assert_eq!(frames.iter().map(|f| f.t).collect::<Vec<_>>(), [40, 31, 21, 11, 1, 0]);
    assert!(frames[0].x_t == all.latents(300) && frames[5].x_t == x && frames[5].x0 == x);
    // At t = 1 the step is to x̂_0 itself.
    assert!(frames[4].x0.iter().zip(&x).all(|(a, b)| (a - b).abs() < 1e-6));
    // Far up, the best guess is the mean of the data: 0.4 and 0.15.
    assert!(frames[0].x0.chunks_exact(2).all(|p| (p[0] - 0.4).abs() < 0.2 && (p[1] - 0.15).abs() < 0.1));
}

#[test]
fn latents_between_two_are_as_long_as_they_and_lie_on_their_circle() {
    let (mut a, mut b) = (vec![0.0; 500], vec![0.0; 500]);
    stream(1, Purpose::Noise, 0).normals(0, &mut a);
    stream(1, Purpose::Noise, 0).normals(1, &mut b);
    let length = |x: &[f32]| x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    assert_eq!((slerp(&a, &b, 0.0), slerp(&a, &b, 1.0)), (a.clone(), b.clone()));
    let middle = slerp(&a, &b, 0.5);
    let between = length(&a).min(length(&b)) - 0.5..length(&a).max(length(&b)) + 0.5;
    assert!(between.contains(&length(&middle)), "{} is not in {between:?}", length(&middle));
    // (1, 0) to (0, 1): thirds of a quarter turn.
    let third = slerp(&[1.0, 0.0], &[0.0, 1.0], 1.0 / 3.0);
    assert!((third[0] - 0.866_025_4).abs() < 1e-6 && (third[1] - 0.5).abs() < 1e-6);
    assert_eq!(slerp(&[1.0, 2.0], &[1.0, 2.0], 0.3), [1.0, 2.0]);
}

#[test]
fn the_oracle_of_a_covariance_is_that_of_its_directions() {
    // C = [[1, 0.8], [0.8, 1]] has the variances 1.8 and 0.2 along (1, 1) and (1, −1).
    let d = GaussianDiffusion::new(&spec(ScheduleKind::Linear, 100, VarianceType::FixedSmall), point(2), Encoding::Continuous).unwrap();
    let oracle = GaussianOracle::new(&d, vec![0.3, -0.1], &[1.0, 0.8, 0.8, 1.0]);
    for t in [1, 50, 100].map(|t| Timestep::new(t).unwrap()) {
        let ab = d.schedule.alpha_bars[t.index()];
        let got = oracle.posterior_mean(t, &[1.1, 0.4]);
        let along = |m: f64, x: f64, variance: f64| m + ab.sqrt() * variance * (x - ab.sqrt() * m) / (ab * variance + 1.0 - ab);
        let (sum, difference) = (along(0.2, 1.5, 1.8), along(0.4, 0.7, 0.2));
        assert!((got[0] + got[1] - sum).abs() < 1e-12 && (got[0] - got[1] - difference).abs() < 1e-12, "t = {t}");
    }
}
