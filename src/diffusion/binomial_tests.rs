//! The Binomial process against enumeration, finite differences, and the heartbeat whose entropy is known.

use super::binomial::BinomialDiffusion;
use super::*;
use crate::data::{Encoding, Shape};
use crate::rng::{EVALUATION_SEED, Purpose, stream};
use crate::units::Timestep;

const BITS: Encoding = Encoding::Discrete { levels: 2 };

fn spec(schedule: ScheduleKind, timesteps: u32, pi: f64) -> DiffusionSpec {
    DiffusionSpec {
        kernel: Kernel::Binomial,
        binomial_pi: pi,
        schedule,
        timesteps,
        gamma_min: ScheduleSpec::GAMMA.0,
        gamma_max: ScheduleSpec::GAMMA.1,
        betas: Vec::new(),
        zero_terminal_snr: false,
        prediction: Prediction::X0,
        variance: VarianceType::FixedLarge,
        first_log_variance: FirstLogVariance::Copy,
        decoder_cdf: DecoderCdf::Tanh,
        clip_x0: false,
    }
}

fn row(dims: usize) -> Shape {
    Shape { height: 1, width: dims, channels: 1 }
}

/// q(x_t = 1 | x_{t−1} = `before`): the definition.
fn step(beta: f64, pi: f64, before: f64) -> f64 {
    before * (1.0 - beta) + beta * pi
}

#[test]
fn the_closed_form_is_the_chain_and_the_posterior_is_bayes_rule_over_both_states() {
    for (schedule, pi) in [(ScheduleKind::Jsd, 0.5), (ScheduleKind::Jsd, 0.2), (ScheduleKind::Cosine, 0.9), (ScheduleKind::Linear, 0.5)] {
        let d = BinomialDiffusion::new(&spec(schedule, 50, pi), row(1)).unwrap();
        for x_0 in [false, true] {
            let mut rate = f64::from(u8::from(x_0));
            for i in 0..50 {
                let (t, beta, before) = (Timestep::from_index(i), d.schedule.betas[i], rate);
                rate = step(beta, pi, before);
                assert!((d.rate(t, x_0) - rate).abs() < 1e-12, "{schedule} {i}");
                for x_t in [false, true] {
                    // The joint of (x_{t−1}, x_t) given x_0, summed by hand.
                    let joint = |previous: f64| {
                        let now = step(beta, pi, previous);
                        (if previous == 1.0 { before } else { 1.0 - before }) * if x_t { now } else { 1.0 - now }
                    };
                    // A bit that cannot be where it is has no posterior.
                    if joint(0.0) + joint(1.0) > 0.0 {
                        let posterior = joint(1.0) / (joint(0.0) + joint(1.0));
                        assert!((d.posterior(t, x_t, x_0) - posterior).abs() < 1e-12, "{schedule} {i} {x_t} {x_0}");
                    }
                }
            }
        }
        assert_eq!((d.posterior(Timestep::FIRST, true, false), d.posterior(Timestep::FIRST, true, true)), (0.0, 1.0));
    }
}

#[test]
fn the_schedule_of_2015_erases_the_same_share_at_every_step() {
    let d = BinomialDiffusion::new(&spec(ScheduleKind::Jsd, 100, 0.2), row(1)).unwrap();
    for (i, a) in d.schedule.alpha_bars.iter().enumerate().take(99) {
        assert!((a - (1.0 - (i + 1) as f64 / 100.0)).abs() < 1e-12, "{i}: {a}");
    }
    // Nothing but a thousandth of the last hundredth is left: the prior term is nil.
    assert!(d.prior_bits_per_dim(&[1.0]) < 1e-9 && d.prior_bits_per_dim(&[1.0]) > 0.0);
}

#[test]
fn draws_have_the_stated_rates_and_noise_pairs_schedules() {
    let n = 40_000;
    let shape = row(n);
    let d = Diffusion::new(&spec(ScheduleKind::Jsd, 10, 0.2), shape, BITS).unwrap();
    let (mut noise, mut x_t, mut later) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
    d.draw_noise(&stream(3, Purpose::Noise, 1), 0, &mut noise);
    let share = |x: &[f32]| x.iter().filter(|v| **v == 1.0).count() as f64 / n as f64;
    for (bit, rates) in [(1.0f32, [0.9 + 0.1 * 0.2, 0.4 + 0.6 * 0.2]), (-1.0, [0.1 * 0.2, 0.6 * 0.2])] {
        let x_0 = vec![bit; n];
        d.q_sample(Timestep::from_index(0), &x_0, &noise, &mut x_t);
        d.q_sample(Timestep::from_index(5), &x_0, &noise, &mut later);
        for (x, rate) in [(&x_t, rates[0]), (&later, rates[1])] {
            assert!(x.iter().all(|v| v.abs() == 1.0));
            assert!((share(x) - rate).abs() < 5.0 * (rate * (1.0 - rate) / n as f64).sqrt(), "{} {rate}", share(x));
        }
        assert!(x_t.iter().zip(&later).all(|(a, b)| *a == bit || *b != bit), "what has flipped early stays flipped");
    }
    d.draw_last(&stream(3, Purpose::Sampling, 0), 0, &mut x_t);
    assert!((share(&x_t) - 0.2).abs() < 5.0 * (0.16 / n as f64).sqrt());
}

#[test]
fn the_term_is_the_divergence_of_the_enumerated_distributions() {
    let pi = 0.3;
    let d = BinomialDiffusion::new(&spec(ScheduleKind::Linear, 40, pi), row(1)).unwrap();
    for i in [0usize, 1, 7, 39] {
        let t = Timestep::from_index(i);
        for (x_0, x_t, logit) in [(1.0, 1.0, 0.4), (1.0, -1.0, -3.0), (-1.0, 1.0, 2.0), (-1.0, -1.0, -0.1)] {
            let p_one = 1.0 / (1.0 + f64::exp(-f64::from(logit)));
            let q = d.posterior(t, x_t > 0.0, x_0 > 0.0);
            let p = p_one * d.posterior(t, x_t > 0.0, true) + (1.0 - p_one) * d.posterior(t, x_t > 0.0, false);
            let part = |q: f64, p: f64| if q > 0.0 { q * (q / p).log2() } else { 0.0 };
            let bits = part(q, p) + part(1.0 - q, 1.0 - p);
            let terms = d.terms(t, &[x_0], &[x_t], &[logit]);
            assert!((terms.vb - bits).abs() < 1e-9, "{i} {x_0} {x_t}: {} {bits}", terms.vb);
            let truth = if x_0 > 0.0 { 1.0 } else { 0.0 };
            assert!((terms.mse - (truth - p_one).powi(2)).abs() < 1e-12);
            assert_eq!(terms.x0_mse, f64::from(u8::from((logit > 0.0) != (x_0 > 0.0))));
        }
    }
    assert_eq!(d.terms(Timestep::FIRST, &[1.0], &[1.0], &[0.0]).x0_mse, 0.5, "an even chance is half an error");
    // Far-off logits cost what they say, and nothing overflows.
    let first = d.terms(Timestep::FIRST, &[1.0], &[1.0], &[-2000.0]);
    assert!((first.vb - 2000.0 / std::f64::consts::LN_2).abs() < 1e-9, "{first:?}");
    assert!(d.terms(Timestep::from_index(20), &[1.0], &[1.0], &[-2000.0]).is_finite());
    assert!(!d.terms(Timestep::from_index(20), &[1.0], &[1.0], &[f32::NAN]).is_finite());
}

#[test]
fn gradients_equal_finite_differences() {
    let dims = 4;
    for (schedule, pi) in [(ScheduleKind::Jsd, 0.2), (ScheduleKind::Cosine, 0.5)] {
        let d = BinomialDiffusion::new(&spec(schedule, 30, pi), row(dims)).unwrap();
        for variant in [LossVariant::Simple, LossVariant::Vlb] {
            let loss = LossSpec::plain(variant);
            for i in [0usize, 1, 14, 29] {
                let t = Timestep::from_index(i);
                let (x_0, x_t) = ([1.0, -1.0, 1.0, -1.0], [1.0, 1.0, -1.0, -1.0]);
                let output = [0.7f32, -1.3, 0.0, 2.5];
                let mut gradient = [0.0; 4];
                let of = |output: &[f32], gradient: &mut [f32]| d.loss_and_gradient(&loss, t, &x_0, &x_t, output, 0.5, gradient);
                let (value, terms) = of(&output, &mut gradient);
                match variant {
                    LossVariant::Simple => assert!(value > 0.0),
                    LossVariant::Vlb | LossVariant::Hybrid => assert!((value - 30.0 * terms.vb).abs() < 1e-12),
                }
                for j in 0..dims {
                    let h = 1.0 / 128.0;
                    let at = |h: f32| {
                        let mut moved = output;
                        moved[j] += h;
                        of(&moved, &mut [0.0; 4]).0
                    };
                    // Central differences, extrapolated to a fourth-order rule.
                    let central = |h: f32| (at(h) - at(-h)) / (2.0 * f64::from(h));
                    let slope = 0.5 * (4.0 * central(h) - central(2.0 * h)) / 3.0;
                    assert!(
                        (slope - f64::from(gradient[j])).abs() < 2e-6 * (1.0 + slope.abs()),
                        "{schedule} {variant} t = {t:?} {j}: {slope} {}",
                        gradient[j]
                    );
                }
            }
        }
    }
}

#[test]
fn the_reverse_step_draws_from_the_reverse_distribution() {
    let n = 40_000;
    let d = Diffusion::new(&spec(ScheduleKind::Jsd, 10, 0.2), row(n), BITS).unwrap();
    let Diffusion::Binomial(inner) = &d else { panic!("a Binomial process") };
    let mut noise = vec![0.0; n];
    d.draw_noise(&stream(EVALUATION_SEED, Purpose::Sampling, 4), 1, &mut noise);
    for (i, x_t) in [(0usize, 1.0f32), (4, 1.0), (4, -1.0)] {
        let t = Timestep::from_index(i);
        let p_one = 1.0 / (1.0 + f64::exp(-0.8));
        let rate = p_one * inner.posterior(t, x_t > 0.0, true) + (1.0 - p_one) * inner.posterior(t, x_t > 0.0, false);
        let mut x = vec![x_t; n];
        d.p_sample(t, &mut x, &vec![0.8; n], &noise);
        let share = x.iter().filter(|v| **v == 1.0).count() as f64 / n as f64;
        assert!((share - rate).abs() < 5.0 * (rate * (1.0 - rate) / n as f64).sqrt(), "{i} {x_t}: {share} {rate}");
    }
}
