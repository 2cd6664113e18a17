//! Weights, λ, learned variances and the end without signal: closed forms of the training losses.

use super::bound::{BoundOptions, evaluate};
use super::oracle::{Component, MixtureOracle};
use super::sampling::ancestral;
use super::timestep_plan::TimestepPlan;
use super::*;
use crate::data::{Encoding, Shape};
use crate::named::NamedEnum;
use crate::record::Moments;
use crate::rng::{Purpose, stream};
use crate::units::Timestep;
use std::sync::atomic::AtomicBool;

fn spec(schedule: ScheduleKind, timesteps: u32, prediction: Prediction, variance: VarianceType) -> DiffusionSpec {
    DiffusionSpec {
        kernel: Kernel::Gaussian,
        binomial_pi: 0.5,
        schedule,
        timesteps,
        gamma_min: ScheduleSpec::GAMMA.0,
        gamma_max: ScheduleSpec::GAMMA.1,
        betas: Vec::new(),
        zero_terminal_snr: false,
        prediction,
        variance,
        first_log_variance: FirstLogVariance::Copy,
        decoder_cdf: DecoderCdf::Tanh,
        clip_x0: false,
    }
}

fn point(dims: usize) -> Shape {
    Shape { height: 1, width: 1, channels: dims }
}

const DIMS: usize = 6;
const LEVELS: Encoding = Encoding::Discrete { levels: 256 };

/// Examples, noise and what some denoiser says of x_0, for one timestep.
fn situation(diffusion: &GaussianDiffusion, t: Timestep) -> ([f32; DIMS], [f32; DIMS], [f32; DIMS], [f32; DIMS]) {
    let (mut x_0, mut noise, mut said, mut x_t) = ([0.0; DIMS], [0.0; DIMS], [0.0; DIMS], [0.0; DIMS]);
    stream(1, Purpose::Noise, t.get()).normals(0, &mut noise);
    stream(2, Purpose::Noise, t.get()).uniforms(0, &mut x_0);
    stream(3, Purpose::Noise, t.get()).normals(0, &mut said);
    x_0.iter_mut().for_each(|x| *x = 2.0 * *x - 1.0);
    said.iter_mut().zip(&x_0).for_each(|(s, x)| *s = *x + 0.5 * *s);
    diffusion.q_sample(t, &x_0, &noise, &mut x_t);
    (x_0, noise, said, x_t)
}

/// The loss of a denoiser that says x̂_0, whatever its output means.
fn loss_of(loss: &LossSpec, schedule: ScheduleKind, prediction: Prediction, t: Timestep) -> f64 {
    let diffusion = GaussianDiffusion::new(&spec(schedule, 100, prediction, VarianceType::FixedSmall), point(DIMS), LEVELS).unwrap();
    let (x_0, noise, said, x_t) = situation(&diffusion, t);
    let mut output = [0.0; DIMS];
    for j in 0..DIMS {
        output[j] = diffusion.output_for_x0(t, x_t[j].into(), said[j].into()) as f32;
    }
    diffusion.loss_and_gradient(loss, t, &x_0, &x_t, &noise, &output, 1.0, &mut [0.0; DIMS]).0
}

#[test]
fn a_weighted_loss_is_that_of_the_denoiser_whatever_its_output_means() {
    for weighting in LossWeighting::ALL.iter().copied().filter(|w| *w != LossWeighting::Constant) {
        let loss = LossSpec { weighting, p2_gamma: 0.5, ..LossSpec::plain(LossVariant::Simple) };
        for schedule in [ScheduleKind::Cosine, ScheduleKind::LinearScaled] {
            // Where the errors of single precision do not drown it.
            for t in [3, 20, 50, 80].map(|t| Timestep::new(t).unwrap()) {
                let on_x0 = loss_of(&loss, schedule, Prediction::X0, t);
                for prediction in [Prediction::Epsilon, Prediction::V, Prediction::Mean] {
                    let other = loss_of(&loss, schedule, prediction, t);
                    assert!((other / on_x0 - 1.0).abs() < 3e-4, "{weighting} {schedule} {prediction} t = {t}: {other}, not {on_x0}");
                }
            }
        }
    }
    // Without a weight they are different losses.
    let t = Timestep::new(20).unwrap();
    let plain = |prediction| loss_of(&LossSpec::plain(LossVariant::Simple), ScheduleKind::LinearScaled, prediction, t);
    assert!((plain(Prediction::Epsilon) / plain(Prediction::X0) - 1.0).abs() > 0.1);
    assert!((plain(Prediction::V) / plain(Prediction::X0) - 1.0).abs() > 0.1);
}

#[test]
fn weights_have_the_published_forms() {
    let of = |weighting, snr: f64| {
        let loss = LossSpec { weighting, p2_gamma: 0.5, p2_k: 2.0, ..LossSpec::plain(LossVariant::Simple) };
        // On ε, x_0 and v.
        [loss.weight(snr, -(1.0 / snr).sqrt()), loss.weight(snr, 1.0), loss.weight(snr, -(1.0 / (snr + 1.0)).sqrt())]
    };
    for snr in [1e-6_f64, 0.01, 0.3, 1.0, 2.5, 5.0, 40.0, 1e6] {
        let p2 = (2.0 + snr).powf(-0.5);
        // The weight by Crowson's code: (σ σ_d)² / (σ² + σ_d²)² on the preconditioned target, whose error is that of x_0 by
        // c_out = σ σ_d / √(σ² + σ_d²); σ² = 1/SNR and σ_d² = 1/γ.
        let (sigma2, data2): (f64, f64) = (1.0 / snr, 1.0 / 5.0);
        let soft = (sigma2 * data2) / (sigma2 + data2).powi(2) / (sigma2 * data2 / (sigma2 + data2));
        for (weighting, published) in [
            (LossWeighting::Constant, [1.0, 1.0, 1.0]),
            (LossWeighting::Snr, [1.0, snr, snr / (snr + 1.0)]),
            (LossWeighting::TruncatedSnr, [snr.max(1.0) / snr, snr.max(1.0), snr.max(1.0) / (snr + 1.0)]),
            (LossWeighting::MinSnr, [snr.min(5.0) / snr, snr.min(5.0), snr.min(5.0) / (snr + 1.0)]),
            (LossWeighting::SoftMinSnr, [5.0 / (snr + 5.0), soft, soft / (snr + 1.0)]),
            (LossWeighting::P2, [p2, snr * p2, snr * p2 / (snr + 1.0)]),
        ] {
            for (got, expected) in of(weighting, snr).into_iter().zip(published) {
                assert!((got / expected - 1.0).abs() < 1e-12, "{weighting} at {snr}: {got}, not {expected}");
            }
        }
    }
    for weighting in LossWeighting::ALL {
        let [_, on_x0, on_v] = of(*weighting, 0.0);
        assert!(on_x0.is_finite() && on_v.is_finite(), "{weighting} at SNR = 0: {on_x0} {on_v}");
    }
}

#[test]
fn lambda_is_that_of_improved_ddpm_and_its_names_have_their_forms() {
    for timesteps in [1000, 4000, 100] {
        let horizon = f64::from(timesteps);
        for t in [1, 2, timesteps / 2].map(|t| Timestep::new(t).unwrap()) {
            let spec = spec(ScheduleKind::LinearScaled, timesteps, Prediction::Epsilon, VarianceType::LearnedRange);
            let diffusion = GaussianDiffusion::new(&spec, point(DIMS), LEVELS).unwrap();
            let (x_0, noise, _, x_t) = situation(&diffusion, t);
            let mut output = [0.0f32; 2 * DIMS];
            stream(7, Purpose::Noise, t.get()).normals(0, &mut output);
            let value = |loss: LossSpec| diffusion.loss_and_gradient(&loss, t, &x_0, &x_t, &noise, &output, 1.0, &mut [0.0; 2 * DIMS]);
            let plain = LossSpec::plain;
            let (mse, terms) = value(plain(LossVariant::Simple));
            assert!((mse / terms.mse - 1.0).abs() < 1e-12);
            for (name, loss, expected) in [
                ("KL", LossSpec { rescale: false, ..plain(LossVariant::Vlb) }, terms.vb),
                ("RESCALED_KL", plain(LossVariant::Vlb), horizon * terms.vb),
                ("MSE", LossSpec { rescale: false, vlb_weight: 1.0, ..plain(LossVariant::Hybrid) }, mse + terms.vb),
                ("RESCALED_MSE", plain(LossVariant::Hybrid), mse + terms.vb * horizon / 1000.0),
                ("lucidrains", LossSpec { rescale: false, ..plain(LossVariant::Hybrid) }, mse + 0.001 * terms.vb),
            ] {
                let got = value(loss).0;
                assert!((got / expected - 1.0).abs() < 1e-12, "{name} at t = {t} of {timesteps}: {got}, not {expected}");
            }
        }
    }
}

#[test]
fn the_mean_is_detached_inside_the_bound_of_the_hybrid() {
    let t = Timestep::new(20).unwrap();
    let diffusion =
        GaussianDiffusion::new(&spec(ScheduleKind::Cosine, 50, Prediction::V, VarianceType::Learned), point(DIMS), LEVELS).unwrap();
    let (x_0, noise, _, x_t) = situation(&diffusion, t);
    let mut output = [0.0f32; 2 * DIMS];
    stream(7, Purpose::Noise, 1).normals(0, &mut output);
    let gradient = |loss: LossSpec| {
        let mut gradient = [0.0f32; 2 * DIMS];
        diffusion.loss_and_gradient(&loss, t, &x_0, &x_t, &noise, &output, 1.0, &mut gradient);
        gradient
    };
    let simple = gradient(LossSpec::plain(LossVariant::Simple));
    let hybrid = gradient(LossSpec { vlb_weight: 10.0, ..LossSpec::plain(LossVariant::Hybrid) });
    let bound = gradient(LossSpec::plain(LossVariant::Vlb));
    assert_eq!(hybrid[..DIMS], simple[..DIMS], "the prediction is moved by the squared error alone");
    assert_ne!(bound[..DIMS], simple[..DIMS]);
    for j in DIMS..2 * DIMS {
        assert!(simple[j] == 0.0 && (hybrid[j] / bound[j] / 10.0 - 1.0).abs() < 1e-6, "the variance by λ times the bound");
    }
}

#[test]
fn an_untrained_learned_variance_is_one_at_every_t() {
    let spec = spec(ScheduleKind::Linear, 1000, Prediction::Epsilon, VarianceType::Learned);
    let diffusion = GaussianDiffusion::new(&spec, point(1), Encoding::Continuous).unwrap();
    assert_eq!((diffusion.output_channels(), diffusion.output_dims()), (2, 2));
    let posterior = diffusion.schedule.posterior_log_variances(FirstLogVariance::Copy);
    for index in [1, 400, 999] {
        let t = Timestep::from_index(index);
        let (x_0, noise, mut x_t) = ([0.25], [0.5], [0.0]);
        diffusion.q_sample(t, &x_0, &noise, &mut x_t);
        // With ε itself as the prediction only the variance is wrong: KL = ½ (ln 1 − log β̃ − 1 + β̃), up to what single
        // precision leaves of the mean.
        let nats = diffusion.terms(t, &x_0, &x_t, &noise, &[0.5, 0.0]).vb * std::f64::consts::LN_2;
        let expected = 0.5 * (-posterior[index] - 1.0 + posterior[index].exp());
        assert!((nats - expected).abs() < 1e-9, "t = {t}: {nats}, not {expected}");
        let right = diffusion.terms(t, &x_0, &x_t, &noise, &[0.5, posterior[index] as f32]);
        assert!(right.vb.abs() < 1e-9, "t = {t}: {right:?}");
    }
}

#[test]
fn the_mean_of_the_rescaled_bound_over_t_is_the_bound() {
    let process = Diffusion::new(&spec(ScheduleKind::Cosine, 40, Prediction::X0, VarianceType::FixedSmall), point(DIMS), LEVELS).unwrap();
    let diffusion = process.gaussian().unwrap();
    let oracle = MixtureOracle::new(diffusion, vec![Component { weight: 1.0, mean: vec![0.1; DIMS], variance: 0.2 }]);
    let (x_0, ..) = situation(diffusion, Timestep::FIRST);
    let plan = TimestepPlan::all(40, 1);
    let stop = AtomicBool::new(false);
    let options = BoundOptions { timesteps: &plan, floor: None, stop: &stop, progress: &mut |_, _| {}, each: &mut |_, _| {} };
    let estimate = evaluate(&process, &oracle, &x_0, options).unwrap();
    let mut sum = 0.0;
    for i in 0..40 {
        let t = Timestep::from_index(i);
        let (mut noise, mut x_t, mut output) = ([0.0; DIMS], [0.0; DIMS], [0.0; DIMS]);
        process.draw_noise(&stream(crate::rng::EVALUATION_SEED, Purpose::EvaluationNoise, t.get()), 0, &mut noise);
        diffusion.q_sample(t, &x_0, &noise, &mut x_t);
        oracle.predict(&x_t, &[t], &mut output).unwrap();
        let loss = LossSpec::plain(LossVariant::Vlb);
        sum += diffusion.loss_and_gradient(&loss, t, &x_0, &x_t, &noise, &output, 1.0, &mut [0.0; DIMS]).0;
    }
    let expected = estimate.bits_per_dim() - estimate.prior.mean;
    assert!((sum / 40.0 / expected - 1.0).abs() < 1e-9, "{} is not {expected}", sum / 40.0);
}

#[test]
fn without_signal_at_the_end_everything_stays_finite_and_epsilon_is_refused() {
    let end = Timestep::new(100).unwrap();
    let zero =
        |prediction, variance| DiffusionSpec { zero_terminal_snr: true, ..spec(ScheduleKind::LinearScaled, 100, prediction, variance) };
    let refused = GaussianDiffusion::new(&zero(Prediction::Epsilon, VarianceType::FixedSmall), point(DIMS), LEVELS).unwrap_err();
    assert_eq!(refused, ScheduleError::EpsilonWithoutSignal);
    for prediction in [Prediction::X0, Prediction::V, Prediction::Mean] {
        for variance in VarianceType::ALL {
            let diffusion = GaussianDiffusion::new(&zero(prediction, *variance), point(DIMS), LEVELS).unwrap();
            let (x_0, noise, said, x_t) = situation(&diffusion, end);
            assert_eq!(x_t, noise, "x_T is the noise itself");
            let mut output = vec![0.1f32; diffusion.output_dims()];
            for j in 0..DIMS {
                output[j] = diffusion.output_for_x0(end, x_t[j].into(), said[j].into()) as f32;
            }
            let expected = x_0.iter().zip(&said).map(|(x, s)| f64::from(x - s).powi(2)).sum::<f64>() / DIMS as f64;
            for (variant, weighting) in LossVariant::ALL.iter().flat_map(|v| LossWeighting::ALL.iter().map(move |w| (*v, *w))) {
                let loss = LossSpec { weighting, ..LossSpec::plain(variant) };
                let mut gradient = vec![0.0; output.len()];
                let (value, terms) = diffusion.loss_and_gradient(&loss, end, &x_0, &x_t, &noise, &output, 1.0, &mut gradient);
                assert!(
                    value.is_finite() && terms.is_finite() && gradient.iter().all(|g| g.is_finite()),
                    "{prediction} {variance} {variant}"
                );
                assert!(terms.mse < 1e-9 && (terms.x0_mse / expected - 1.0).abs() < 1e-4, "ε is x_T: {terms:?}");
            }
            let mut x = x_t;
            diffusion.p_sample(end, &mut x, &output, &noise);
            assert!(x.iter().all(|x| x.is_finite()));
        }
    }
    let bits = DiffusionSpec { kernel: Kernel::Binomial, ..zero(Prediction::X0, VarianceType::FixedLarge) };
    let bits = Diffusion::new(&bits, point(2), Encoding::Discrete { levels: 2 }).unwrap();
    let terms = bits.terms(end, &[1.0, -1.0], &[-1.0, 1.0], &[0.9, 0.1], &[0.5, 0.5]);
    assert!(terms.is_finite() && bits.prior_bits_per_dim(&[1.0, -1.0]).abs() < 1e-12, "{terms:?}");
}

#[test]
fn samples_without_signal_at_the_end_follow_the_mixture() {
    for prediction in [Prediction::V, Prediction::X0] {
        let spec = DiffusionSpec { zero_terminal_snr: true, ..spec(ScheduleKind::Cosine, 200, prediction, VarianceType::FixedSmall) };
        let process = Diffusion::new(&spec, point(1), Encoding::Continuous).unwrap();
        let components =
            vec![Component { weight: 0.7, mean: vec![1.0], variance: 0.04 }, Component { weight: 0.3, mean: vec![-1.0], variance: 0.01 }];
        let n = 2000;
        let oracle = MixtureOracle::new(process.gaussian().unwrap(), components);
        let x = ancestral(&process, &oracle, n, &AtomicBool::new(false)).unwrap();
        let mut right = Moments::default();
        x.iter().filter(|x| **x > 0.0).for_each(|x| right.push((*x).into()));
        let share = right.n as f64 / n as f64;
        assert!((share - 0.7).abs() < 5.0 * (0.21 / n as f64).sqrt(), "{prediction}: {share}");
        assert!((right.mean - 1.0).abs() < 0.03 && (right.variance() / 0.04 - 1.0).abs() < 0.2, "{prediction}: {right:?}");
    }
}
