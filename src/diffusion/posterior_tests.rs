//! Sampling under what is known, against exact conditionals: of Gaussians in closed form, of the heartbeat by enumeration.
//! Where a method is biased, the bias itself is computed by recursion and the sampler is held to it.

use super::gaussian_oracle::GaussianOracle;
use super::oracle::{Component, MixtureOracle};
use super::posterior::{Condition, Factor, LogFactor, from_observation};
use super::respacing::Respaced;
use super::sampling::Sampler;
use super::sampling_tests::{assert_normal, point, spec, walk, within};
use super::*;
use crate::data::{Encoding, Shape};
use crate::record::Moments;
use crate::units::Timestep;

/// Two standard normals with this correlation, of which the first is observed.
const RHO: f64 = 0.8;
const SEEN: f64 = 1.2;
const COVARIANCE: [f64; 4] = [1.0, RHO, RHO, 1.0];

fn process(schedule: ScheduleKind, timesteps: u32, dims: usize) -> Diffusion {
    Diffusion::new(&spec(schedule, timesteps, VarianceType::FixedLarge), point(dims), Encoding::Continuous).unwrap()
}

/// The gain of E[x_0 | x_t] for the hidden value: on itself, and on the observed one.
fn gains(ab: f64) -> (f64, f64) {
    let along = |variance: f64| ab.sqrt() * variance / (ab * variance + 1.0 - ab);
    ((along(1.0 + RHO) + along(1.0 - RHO)) / 2.0, (along(1.0 + RHO) - along(1.0 - RHO)) / 2.0)
}

/// Mean and variance of the hidden value after inpainting: every step is linear, and the observed value is known
/// (`renoise`: known up to the noise of its own at every step).
fn inpainted(process: &Diffusion, renoise: bool, rounds: usize) -> (f64, f64) {
    let s = process.schedule();
    let (low, _) = s.reverse_log_variances(VarianceType::FixedLarge, FirstLogVariance::Copy);
    let seen = |ab: f64| if renoise { (ab.sqrt() * SEEN, 1.0 - ab) } else { (SEEN, 0.0) };
    let (mut mean, mut variance, mut covariance) = (0.0, 1.0, 0.0);
    let (mut seen_mean, mut seen_variance) = seen(s.alpha_bars[s.timesteps() - 1]);
    for i in (0..s.timesteps()).rev() {
        let (own, other) = gains(s.alpha_bars[i]);
        let (a, b) = (s.posterior_x0_coefs[i] * own + s.posterior_xt_coefs[i], s.posterior_x0_coefs[i] * other);
        for round in 0..rounds {
            mean = a * mean + b * seen_mean;
            variance = a * a * variance + b * b * seen_variance + 2.0 * a * b * covariance + if i == 0 { 0.0 } else { low[i].exp() };
            (seen_mean, seen_variance) = seen(s.alpha_bars_prev[i]);
            covariance = 0.0;
            if i == 0 {
                break;
            }
            if round + 1 < rounds {
                // Up again.
                let kept = 1.0 - s.betas[i];
                (mean, variance) = (kept.sqrt() * mean, kept * variance + s.betas[i]);
                if renoise {
                    (seen_mean, seen_variance) = (kept.sqrt() * seen_mean, kept * seen_variance + s.betas[i]);
                }
            }
        }
    }
    (mean, variance)
}

#[test]
fn inpainting_a_correlated_gaussian_has_the_bias_of_the_method_and_rounds_mend_it() {
    let exact = (RHO * SEEN, 1.0 - RHO * RHO);
    // What the module says of T = 1000.
    let long = process(ScheduleKind::Linear, 1000, 2);
    for (renoise, rounds, mean, variance) in [
        (false, 1, 0.7269, 0.4956),
        (false, 5, 0.9181, 0.3856),
        (false, 50, 0.9563, 0.3625),
        (true, 1, 0.5989, 0.4958),
        (true, 5, 0.8804, 0.3856),
    ] {
        let got = inpainted(&long, renoise, rounds);
        assert!((got.0 - mean).abs() < 1e-4 && (got.1 - variance).abs() < 1e-4, "renoise {renoise} {rounds}: {got:?}");
    }
    // More steps lead to a limit that is not the conditional; more rounds lead to it.
    let [few, many] = [100, 4000].map(|t| inpainted(&process(ScheduleKind::LinearScaled, t, 2), false, 1).0);
    assert!((few - many).abs() < 0.01 && exact.0 - many > 0.2, "{few} {many}");
    let far = |rounds| {
        let got = inpainted(&long, false, rounds);
        (got.0 / exact.0 - 1.0).abs() + (got.1 / exact.1 - 1.0).abs()
    };
    assert!(far(5) < far(1) / 4.0 && far(50) < far(5) / 8.0 && far(50) < 0.012, "{} {} {}", far(1), far(5), far(50));

    let d = process(ScheduleKind::Cosine, 100, 2);
    let oracle = GaussianOracle::new(d.gaussian().unwrap(), vec![0.0; 2], &COVARIANCE);
    let steps = Respaced::all(&d);
    // The second example is the first mirrored at 0: what is observed goes to its own samples.
    let (observed, hidden, draws) = ([SEEN as f32, 9.0, -SEEN as f32, 9.0], [false, true], 3000);
    for (renoise, rounds) in [(false, 1), (false, 5), (true, 1), (true, 5)] {
        let factor = if renoise {
            Factor::Renoise { observed: &observed, hidden: &hidden }
        } else {
            Factor::Clamp { observed: &observed, hidden: &hidden }
        };
        let condition = Condition { factor, draws, rounds };
        let x = walk(&steps, Sampler::Posterior(&condition)).draw(&oracle, 2 * draws).unwrap().x;
        assert!(x[..2 * draws].chunks_exact(2).all(|p| p[0] == SEEN as f32), "what is observed stays");
        let (mean, variance) = inpainted(&d, renoise, rounds as usize);
        let what = format!("renoise {renoise}, {rounds} rounds");
        assert_normal(x[..2 * draws].chunks_exact(2).map(|p| p[1].into()), mean, variance, &what);
        assert_normal(x[2 * draws..].chunks_exact(2).map(|p| p[1].into()), -mean, variance, &what);
    }
}

/// r_t(x_t) = E[N(y; x_0, d²) | x_t] of the first value of a Gaussian: N(y; (K_t x_t)_1, V_t + d²).
struct Exact<'a> {
    alpha_bars: &'a [f64],
    y: f64,
    d2: f64,
}

impl LogFactor for Exact<'_> {
    fn log_r(&self, _: usize, t: u32, x: &[f64], gradient: &mut [f64]) -> f64 {
        let ab = Timestep::new(t).map_or(1.0, |t| self.alpha_bars[t.index()]);
        let (own, other) = gains(ab);
        let variance = 1.0 - ab.sqrt() * (own + RHO * other) + self.d2;
        let difference = self.y - own * x[0] - other * x[1];
        gradient[0] = own * difference / variance;
        gradient[1] = other * difference / variance;
        -0.5 * difference * difference / variance
    }
}

#[test]
fn a_factor_that_knows_its_t_gives_the_exact_posterior() {
    let d = process(ScheduleKind::Linear, 1000, 2);
    let oracle = GaussianOracle::new(d.gaussian().unwrap(), vec![0.0; 2], &COVARIANCE);
    let factor = Exact { alpha_bars: &d.schedule().alpha_bars, y: SEEN, d2: 0.25 };
    // The gradient is that of the value.
    let x = [0.4, -0.9];
    let mut gradient = [0.0; 2];
    for t in [0, 1, 300, 1000] {
        factor.log_r(0, t, &x, &mut gradient);
        for (j, slope) in gradient.iter().enumerate() {
            let at = |h: f64| {
                let mut moved = x;
                moved[j] += h;
                factor.log_r(0, t, &moved, &mut [0.0; 2])
            };
            assert!((slope - (at(1e-5) - at(-1e-5)) / 2e-5).abs() < 1e-8, "t = {t}, {j}");
        }
    }
    let n = 3000;
    let condition = Condition { factor: Factor::Smooth(&factor), draws: 1, rounds: 1 };
    let steps = Respaced::all(&d);
    let x = walk(&steps, Sampler::Posterior(&condition)).draw(&oracle, n).unwrap().x;
    let gain = 1.0 / 1.25;
    for (j, correlation) in [1.0, RHO].into_iter().enumerate() {
        let value = |p: &[f32]| f64::from(p[j]);
        assert_normal(
            x.chunks_exact(2).map(value),
            correlation * gain * SEEN,
            1.0 - correlation * correlation * gain,
            &format!("value {j}"),
        );
    }
}

/// Mean and variance of a standard normal after denoising y by the method of 2015.
fn denoised(process: &Diffusion, y: f64, d: f64) -> (f64, f64) {
    let s = process.schedule();
    let (low, _) = s.reverse_log_variances(VarianceType::FixedLarge, FirstLogVariance::Copy);
    let mut variance = 1.0 / (1.0 + 1.0 / (d * d));
    let mut mean = variance * y / (d * d);
    for i in (0..s.timesteps()).rev() {
        let a = s.posterior_x0_coefs[i] * s.alpha_bars[i].sqrt() + s.posterior_xt_coefs[i];
        let own = (-low[i]).exp();
        let left = 1.0 / (own + 1.0 / (d * d));
        mean = left * (own * a * mean + y / (d * d));
        variance = (left * own * a).powi(2) * variance + if i == 0 { 0.0 } else { left };
    }
    (mean, variance)
}

#[test]
fn denoising_a_gaussian_has_the_bias_of_the_method_and_none_from_the_right_timestep() {
    let (y, d) = (1.2, 0.5);
    let exact = (y / (1.0 + d * d), d * d / (1.0 + d * d));
    let long = process(ScheduleKind::Linear, 1000, 1);
    let got = denoised(&long, y, d);
    assert!((got.0 / exact.0 - 1.111).abs() < 1e-3 && (got.1 - 0.1115).abs() < 1e-4, "{got:?}");

    let n = 4000;
    let small = process(ScheduleKind::Cosine, 200, 1);
    let normal = vec![Component { weight: 1.0, mean: vec![0.0], variance: 1.0 }];
    let oracle = MixtureOracle::new(small.gaussian().unwrap(), normal.clone());
    let condition = Condition { factor: Factor::Noisy { observed: &[y as f32], deviation: d }, draws: n, rounds: 1 };
    let steps = Respaced::all(&small);
    let x = walk(&steps, Sampler::Posterior(&condition)).draw(&oracle, n).unwrap().x;
    let (mean, variance) = denoised(&small, y, d);
    assert_normal(x.iter().map(|x| f64::from(*x)), mean, variance, "the method of 2015");

    let oracle = MixtureOracle::new(long.gaussian().unwrap(), normal);
    let steps = Respaced::all(&long);
    let (from, x) = from_observation(&steps, &[y as f32], d, n, 7).unwrap();
    let ab = long.schedule().alpha_bars[from];
    assert!((1.0 - ab) / ab >= d * d && (1.0 - long.schedule().alpha_bars[from - 1]) / long.schedule().alpha_bars[from - 1] < d * d);
    let x = walk(&steps, Sampler::Ancestral).descend(&oracle, x, from).unwrap().x;
    assert_normal(x.iter().map(|x| f64::from(*x)), exact.0, exact.1, "from the right timestep");
    assert!(from_observation(&steps, &[1.0], 1e4, 1, 7).is_none(), "noisier than x_T");
}

/// E[x_0 | x_t] of the heartbeat by enumeration of its five sequences, as logits.
struct Heartbeat<'a>(&'a BinomialDiffusion);

const BITS: usize = 20;

fn beats(phase: usize) -> [f32; BITS] {
    std::array::from_fn(|i| if i % 5 == phase { 1.0 } else { -1.0 })
}

impl Denoiser for Heartbeat<'_> {
    fn predict(&self, x_t: &[f32], t: &[Timestep], output: &mut [f32]) -> Result<(), DenoiserError> {
        for ((x, t), output) in x_t.chunks_exact(BITS).zip(t).zip(output.chunks_exact_mut(BITS)) {
            let rates = [false, true].map(|x_0| self.0.rate(*t, x_0));
            let log = |phase: usize| -> f64 {
                let of = |(x, beat): (&f32, f32)| {
                    let rate = rates[usize::from(beat > 0.0)];
                    if *x > 0.0 { rate.ln() } else { (1.0 - rate).ln() }
                };
                x.iter().zip(beats(phase)).map(of).sum()
            };
            let logs: [f64; 5] = std::array::from_fn(log);
            let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights = logs.map(|l| (l - largest).exp());
            let total: f64 = weights.iter().sum();
            for (i, o) in output.iter_mut().enumerate() {
                let one = (weights[i % 5] / total).clamp(1e-12, 1.0 - 1e-12);
                *o = (one / (1.0 - one)).ln() as f32;
            }
        }
        Ok(())
    }

    fn batch(&self) -> usize {
        64
    }
}

#[test]
fn bits_of_a_heartbeat_are_filled_in() {
    let spec = DiffusionSpec {
        kernel: Kernel::Binomial,
        binomial_pi: 0.2,
        prediction: Prediction::X0,
        ..spec(ScheduleKind::Jsd, 200, VarianceType::FixedLarge)
    };
    let encoding = Encoding::Discrete { levels: 2 };
    let d = Diffusion::new(&spec, Shape { height: 1, width: BITS, channels: 1 }, encoding).unwrap();
    let Diffusion::Binomial(inner) = &d else { panic!("a Binomial process") };
    let (oracle, steps, n) = (Heartbeat(inner), Respaced::all(&d), 1500);
    // Whole sequences, all phases alike, with nothing known.
    let x = walk(&steps, Sampler::Ancestral).draw(&oracle, n).unwrap().x;
    let phase = |x: &[f32]| (0..5).find(|p| beats(*p) == x);
    let share = |x: &[f32], p: usize| x.chunks_exact(BITS).filter(|x| phase(x) == Some(p)).count() as f64 / n as f64;
    (0..5).for_each(|p| within(share(&x, p), 0.2, (0.16 / n as f64).sqrt(), "a phase"));

    let hidden: Vec<bool> = (0..BITS).map(|i| i >= 5).collect();
    let truth = beats(3);
    // How often the one sequence that is left comes out whole, beside `tests/reference/posterior.py` (400 samples).
    for (renoise, rounds, expected) in [(false, 1, 0.70), (false, 3, 0.8525), (true, 1, 0.545), (true, 3, 0.6325)] {
        let factor = if renoise {
            Factor::Renoise { observed: &truth, hidden: &hidden }
        } else {
            Factor::Clamp { observed: &truth, hidden: &hidden }
        };
        let condition = Condition { factor, draws: n, rounds };
        let x = walk(&steps, Sampler::Posterior(&condition)).draw(&oracle, n).unwrap().x;
        assert!(x.chunks_exact(BITS).all(|x| x[..5] == truth[..5]), "what is observed stays");
        let error = (expected * (1.0 - expected) * (1.0 / n as f64 + 1.0 / 400.0)).sqrt();
        within(share(&x, 3), expected, error, &format!("renoise {renoise}, {rounds} rounds"));
    }

    // Two bits without a beat leave three phases, alike by symmetry.
    let hidden: Vec<bool> = (0..BITS).map(|i| i >= 2).collect();
    let condition = Condition { factor: Factor::Clamp { observed: &truth, hidden: &hidden }, draws: n, rounds: 1 };
    let x = walk(&steps, Sampler::Posterior(&condition)).draw(&oracle, n).unwrap().x;
    let shares: Vec<f64> = (0..5).map(|p| share(&x, p)).collect();
    assert!(shares[0] == 0.0 && shares[1] == 0.0 && shares.iter().sum::<f64>() > 0.5, "the others mix phases: {shares:?}");
    let all: f64 = shares.iter().sum();
    for share in &shares[2..] {
        within(share / all, 1.0 / 3.0, (0.222 / (all * n as f64)).sqrt(), "a phase that is left");
    }

    // Bits seen through noise: the posterior of a lone bit is c d / (c d + (1 − c)(1 − d)).
    let condition = Condition { factor: Factor::Noisy { observed: &[0.3, -2.0], deviation: 0.8 }, draws: 1, rounds: 1 };
    let mut rates = [0.2, 0.6];
    condition.bend_rates(0, &mut rates);
    for ((rate, before), y) in rates.iter().zip([0.2, 0.6]).zip([0.3, -2.0]) {
        let density = |x: f64| (-(y - x) * (y - x) / (2.0f64 * 0.64)).exp();
        let expected = before * density(1.0) / (before * density(1.0) + (1.0 - before) * density(-1.0));
        assert!((rate - expected).abs() < 1e-7, "{rate} {expected}");
    }
    let noisy: Vec<f32> = truth.iter().enumerate().map(|(i, x)| x + if i % 2 == 0 { 0.5 } else { -0.5 }).collect();
    let condition = Condition { factor: Factor::Noisy { observed: &noisy, deviation: 0.5 }, draws: n, rounds: 1 };
    let x = walk(&steps, Sampler::Posterior(&condition)).draw(&oracle, n).unwrap().x;
    let mut wrong = Moments::default();
    x.chunks_exact(BITS).for_each(|x| wrong.push(x.iter().zip(&truth).filter(|(a, b)| a != b).count() as f64 / BITS as f64));
    assert!(wrong.mean < 0.01, "{wrong:?}");
}
