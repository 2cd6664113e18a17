//! The diffusion core against closed forms, published numbers and finite differences.

use super::bound::{BoundOptions, evaluate};
use super::oracle::{Component, MixtureOracle};
use super::sampling::ancestral;
use super::timestep_plan::{Spread, TimestepPlan};
use super::*;
use crate::data::{Encoding, Shape};
use crate::named::NamedEnum;
use crate::record::Moments;
use crate::rng::{Purpose, stream};
use crate::units::Timestep;
use std::sync::atomic::AtomicBool;

fn spec(schedule: ScheduleKind, timesteps: u32) -> DiffusionSpec {
    DiffusionSpec {
        kernel: Kernel::Gaussian,
        binomial_pi: 0.5,
        schedule,
        timesteps,
        gamma_min: ScheduleSpec::GAMMA.0,
        gamma_max: ScheduleSpec::GAMMA.1,
        betas: Vec::new(),
        zero_terminal_snr: false,
        prediction: Prediction::Epsilon,
        variance: VarianceType::FixedLarge,
        first_log_variance: FirstLogVariance::Copy,
        decoder_cdf: DecoderCdf::Tanh,
        clip_x0: false,
    }
}

fn point(dims: usize) -> Shape {
    Shape { height: 1, width: 1, channels: dims }
}

/// Σ_t E_ε[term] of a network that puts out 0, for one interior pixel: the expectation over ε by quadrature.
fn bound_of_zero(schedule: ScheduleKind, timesteps: u32, variance: VarianceType) -> f64 {
    let diffusion =
        GaussianDiffusion::new(&DiffusionSpec { variance, ..spec(schedule, timesteps) }, point(1), Encoding::Discrete { levels: 256 })
            .unwrap();
    let (n, width) = (2000, 16.0 / 2000.0);
    let x_0 = [1.0 / 255.0];
    let mut total = diffusion.prior_bits_per_dim(&x_0);
    for i in 0..diffusion.timesteps() {
        let t = Timestep::from_index(i);
        for k in 0..n {
            let eps = -8.0 + width * (f64::from(k) + 0.5);
            let density = (-0.5 * eps * eps).exp() / (2.0 * std::f64::consts::PI).sqrt();
            let noise = [eps as f32];
            let mut x_t = [0.0];
            diffusion.q_sample(t, &x_0, &noise, &mut x_t);
            total += density * width * diffusion.terms(t, &x_0, &x_t, &noise, &[0.0]).vb;
        }
    }
    total
}

#[test]
fn a_network_that_says_zero_has_the_published_bound() {
    use ScheduleKind::*;
    for (schedule, timesteps, variance, golden) in [
        (Linear, 1000, VarianceType::FixedSmall, 17.191),
        (Linear, 1000, VarianceType::FixedLarge, 16.509),
        (LinearScaled, 100, VarianceType::FixedSmall, 19.531),
        (LinearScaled, 100, VarianceType::FixedLarge, 17.470),
        (Cosine, 100, VarianceType::FixedSmall, 739.11),
        (Cosine, 1000, VarianceType::FixedSmall, 741.69),
    ] {
        let bound = bound_of_zero(schedule, timesteps, variance);
        assert!((bound / golden - 1.0).abs() < 6e-5, "{schedule} T = {timesteps} {variance}: {bound}, not {golden}");
    }
}

#[test]
#[expect(clippy::approx_constant, reason = "0.318 is a weight here, and only happens to be near 1/π")]
fn the_weight_of_the_squared_error_in_the_bound_is_golden() {
    for (variance, weights) in [
        (VarianceType::FixedSmall, vec![(1, 0.59967), (2, 0.31800), (10, 0.078977), (100, 0.010178), (500, 0.0055145), (999, 0.010205)]),
        (VarianceType::FixedLarge, vec![(1, 0.27269), (2, 0.19440), (10, 0.068224)]),
    ] {
        let diffusion =
            GaussianDiffusion::new(&DiffusionSpec { variance, ..spec(ScheduleKind::Linear, 1000) }, point(1), Encoding::Continuous)
                .unwrap();
        for (index, golden) in weights {
            let t = Timestep::from_index(index);
            let vb = |error: f32| {
                let mut x_t = [0.0];
                diffusion.q_sample(t, &[0.3], &[0.7], &mut x_t);
                diffusion.terms(t, &[0.3], &x_t, &[0.7], &[0.7 + error]).vb * std::f64::consts::LN_2
            };
            let weight = vb(1.0) - vb(0.0);
            assert!((weight / golden - 1.0).abs() < 1e-4, "{variance} {index}: {weight}");
        }
    }
}

#[test]
fn loss_gradients_equal_finite_differences() {
    let shape = Shape { height: 2, width: 1, channels: 2 };
    let mut checked = 0;
    for prediction in Prediction::ALL {
        for (variance, variant) in [
            (VarianceType::FixedSmall, LossVariant::Simple),
            (VarianceType::FixedLarge, LossVariant::Vlb),
            (VarianceType::LearnedRange, LossVariant::Vlb),
            (VarianceType::LearnedRange, LossVariant::Hybrid),
            (VarianceType::Learned, LossVariant::Vlb),
            (VarianceType::Learned, LossVariant::Hybrid),
        ] {
            for encoding in [Encoding::Discrete { levels: 17 }, Encoding::Continuous] {
                for t in [1, 2, 7, 30].map(|t| Timestep::new(t).unwrap()) {
                    let diffusion = GaussianDiffusion::new(
                        &DiffusionSpec { prediction: *prediction, variance, ..spec(ScheduleKind::LinearScaled, 30) },
                        shape,
                        encoding,
                    )
                    .unwrap();
                    // Each weighting at some t, with and without T.
                    let weighting =
                        LossWeighting::ALL[(t.index() + usize::from(encoding == Encoding::Continuous)) % LossWeighting::ALL.len()];
                    let loss = LossSpec { weighting, vlb_weight: 0.01, rescale: t.get() != 7, ..LossSpec::plain(variant) };
                    let x_0 = [0.5f32, -0.25, 1.0, -1.0];
                    let (mut noise, mut x_t) = ([0.0; 4], [0.0; 4]);
                    stream(1, Purpose::Noise, t.get()).normals(0, &mut noise);
                    diffusion.q_sample(t, &x_0, &noise, &mut x_t);
                    // Near the truth, so that the decoder's clamp does not bite.
                    let mut output = vec![0.0f32; diffusion.output_dims()];
                    stream(2, Purpose::Noise, t.get()).normals(0, &mut output);
                    for j in 0..4 {
                        let place = diffusion.output_channels() * (j / 2) + j % 2;
                        let exact = diffusion.output_for_x0(t, x_t[j].into(), x_0[j].into());
                        output[place] = exact as f32 + 0.03 * output[place];
                    }
                    let value = |output: &[f32]| {
                        diffusion.loss_and_gradient(&loss, t, &x_0, &x_t, &noise, output, 1.0, &mut vec![0.0; output.len()]).0
                    };
                    let mut gradient = vec![0.0; output.len()];
                    diffusion.loss_and_gradient(&loss, t, &x_0, &x_t, &noise, &output, 1.0, &mut gradient);
                    for j in 0..output.len() {
                        // In hybrid the bound moves only the variance, so the mean's slope is that of the squared error.
                        let is_variance = diffusion.output_channels() == 4 && j % 4 >= 2;
                        let (mut up, mut down) = (output.clone(), output.clone());
                        up[j] += 1e-3;
                        down[j] -= 1e-3;
                        let step = f64::from(up[j]) - f64::from(down[j]);
                        let numeric = if variant == LossVariant::Hybrid && !is_variance {
                            let squared = LossSpec { variant: LossVariant::Simple, ..loss.clone() };
                            let value =
                                |o: &[f32]| diffusion.loss_and_gradient(&squared, t, &x_0, &x_t, &noise, o, 1.0, &mut vec![0.0; o.len()]).0;
                            (value(&up) - value(&down)) / step
                        } else {
                            (value(&up) - value(&down)) / step
                        };
                        let g = f64::from(gradient[j]);
                        assert!(
                            (g - numeric).abs() <= 2e-3 * (g.abs() + 1e-2),
                            "{prediction} {variance} {variant} {encoding:?} t = {t} element {j}: {g} against {numeric}"
                        );
                        checked += 1;
                    }
                }
            }
        }
    }
    assert!(checked > 300);
}

#[test]
fn predictions_convert_into_each_other() {
    for prediction in Prediction::ALL {
        let diffusion = GaussianDiffusion::new(
            &DiffusionSpec { prediction: *prediction, ..spec(ScheduleKind::Cosine, 50) },
            point(1),
            Encoding::Continuous,
        )
        .unwrap();
        for t in [1, 25, 49].map(|t| Timestep::new(t).unwrap()) {
            let mut x_t = [0.0];
            diffusion.q_sample(t, &[0.4], &[-1.3], &mut x_t);
            let output = [diffusion.output_for_x0(t, x_t[0].into(), 0.4) as f32];
            let terms = diffusion.terms(t, &[0.4], &x_t, &[-1.3], &output);
            assert!(terms.mse < 1e-9 && terms.x0_mse < 1e-9, "{prediction} t = {t}: {terms:?}");
        }
    }
}

/// Data from N(m, s²) per dimension.
fn gaussian_data(count: usize, dims: usize, mean: f32, deviation: f32) -> Vec<f32> {
    let mut x = vec![0.0; count * dims];
    stream(5, Purpose::ToyData, 0).normals(0, &mut x);
    x.iter_mut().for_each(|x| *x = mean + deviation * *x);
    x
}

#[test]
fn the_oracle_on_gaussian_data_has_the_analytic_bound_at_every_t() {
    let (mean, deviation, dims, count) = (0.3, 0.6, 2, 4000);
    let x = gaussian_data(count, dims, mean as f32, deviation as f32);
    for prediction in Prediction::ALL {
        for variance in VarianceType::ALL.iter().copied() {
            let spec = DiffusionSpec { prediction: *prediction, variance, ..spec(ScheduleKind::LinearScaled, 40) };
            let process = Diffusion::new(&spec, point(dims), Encoding::Continuous).unwrap();
            let diffusion = process.gaussian().unwrap();
            let oracle =
                MixtureOracle::new(diffusion, vec![Component { weight: 1.0, mean: vec![mean; dims], variance: deviation * deviation }]);
            let stop = AtomicBool::new(false);
            let estimate = evaluate(
                &process,
                &oracle,
                &x,
                BoundOptions {
                    timesteps: &TimestepPlan::all(40, 1),
                    floor: None,
                    stop: &stop,
                    progress: &mut |_, _| {},
                    each: &mut |_, _| {},
                },
            )
            .unwrap();
            let posterior = diffusion.schedule.posterior_log_variances(FirstLogVariance::Copy);
            let (fixed, _) = diffusion.schedule.reverse_log_variances(variance, FirstLogVariance::Copy);
            for (i, (t, weight, at)) in estimate.timesteps.iter().enumerate() {
                assert_eq!((*weight, t.index()), (1.0, i));
                let ab = diffusion.schedule.alpha_bars[i];
                let s2 = deviation * deviation;
                // E (x_0 − E[x_0 | x_t])², the irreducible error.
                let error = s2 * (1.0 - ab) / (ab * s2 + 1.0 - ab);
                // Of a learned variance the oracle says the best.
                let c = diffusion.schedule.posterior_x0_coefs[i];
                let best = if i == 0 { error } else { posterior[i].exp() + c * c * error };
                let fixed = match variance {
                    VarianceType::FixedSmall | VarianceType::FixedLarge => fixed[i],
                    VarianceType::LearnedRange | VarianceType::Learned => best.ln(),
                };
                let nats = if i == 0 {
                    0.5 * ((2.0 * std::f64::consts::PI).ln() + fixed + error / fixed.exp())
                } else {
                    0.5 * (fixed - posterior[i] - 1.0 + (posterior[i] - fixed).exp() + c * c * error / fixed.exp())
                };
                let z = (at.vb.mean - nats / std::f64::consts::LN_2) / at.vb.standard_error();
                assert!(
                    z.abs() < 4.5,
                    "{prediction} {variance} t = {t}: {} against {}, {z} standard errors",
                    at.vb.mean,
                    nats / std::f64::consts::LN_2
                );
                let eps_error = ab / (1.0 - ab) * error;
                assert!(((at.mse.mean - eps_error) / at.mse.standard_error()).abs() < 4.5, "{prediction} eps-MSE at {t}");
            }
            let total = estimate.prior.mean + estimate.timesteps.iter().map(|(_, _, e)| e.vb.mean).sum::<f64>();
            assert!((estimate.bits_per_dim() - total).abs() < 1e-9 && (estimate.per_example.mean - total).abs() < 1e-9);
        }
    }
}

/// Golden values: `tests/reference/strided_plan.py`.
#[test]
fn the_strata_of_a_strided_plan_stay_what_they_were() {
    // Stored runs were evaluated at these t.
    let plan = TimestepPlan::strided(1000, 12, 1, Spread::Noise);
    let visited: Vec<(u32, f64)> = plan.visits().iter().map(|v| (v.t.get(), v.weight)).collect();
    let golden = [(1, 1), (3, 2), (5, 3), (10, 6), (21, 11), (39, 21), (81, 39), (92, 72), (274, 134), (470, 249), (831, 461), (1000, 1)];
    assert_eq!(visited, golden.map(|(t, size)| (t, f64::from(size))));
    let all: Vec<u32> = TimestepPlan::strided(5, 50, 1, Spread::Noise).visits().iter().map(|v| v.t.get()).collect();
    assert_eq!(all, [1, 2, 3, 4, 5]);
}

#[test]
fn ancestral_samples_of_the_oracle_follow_the_mixture() {
    let spec = DiffusionSpec { variance: VarianceType::FixedSmall, ..spec(ScheduleKind::Cosine, 400) };
    let process = Diffusion::new(&spec, point(2), Encoding::Continuous).unwrap();
    let diffusion = process.gaussian().unwrap();
    let components = vec![
        Component { weight: 0.7, mean: vec![1.0, 0.0], variance: 0.04 },
        Component { weight: 0.3, mean: vec![-1.0, 0.5], variance: 0.01 },
    ];
    let n = 2000;
    let x = ancestral(&process, &MixtureOracle::new(diffusion, components), n, &AtomicBool::new(false)).unwrap();
    let right: Vec<&[f32]> = x.chunks_exact(2).filter(|p| p[0] > 0.0).collect();
    let share = right.len() as f64 / n as f64;
    assert!((share - 0.7).abs() < 5.0 * (0.21 / n as f64).sqrt(), "{share} of the samples at the component of weight 0.7");
    let mut first = Moments::default();
    right.iter().for_each(|p| first.push(p[0].into()));
    assert!((first.mean - 1.0).abs() < 0.03 && (first.variance() / 0.04 - 1.0).abs() < 0.15, "{first:?}");
    let again = ancestral(
        &process,
        &MixtureOracle::new(diffusion, vec![Component { weight: 1.0, mean: vec![0.0; 2], variance: 1.0 }]),
        3,
        &AtomicBool::new(false),
    )
    .unwrap();
    assert_eq!(again.len(), 6);
}

#[test]
fn a_bound_with_a_sample_that_is_not_finite_is_no_number() {
    struct Broken;
    impl Denoiser for Broken {
        fn predict(&self, x_t: &[f32], t: &[Timestep], output: &mut [f32]) -> Result<(), DenoiserError> {
            output.fill(if t[0].get() == 3 && x_t[0] > 0.0 { f32::NAN } else { 0.0 });
            Ok(())
        }
        fn batch(&self) -> usize {
            1
        }
    }
    let diffusion = Diffusion::new(&spec(ScheduleKind::Cosine, 8), point(1), Encoding::Continuous).unwrap();
    let stop = AtomicBool::new(false);
    let plan = TimestepPlan::all(8, 1);
    let x = gaussian_data(20, 1, 0.0, 1.0);
    let estimate = evaluate(
        &diffusion,
        &Broken,
        &x,
        BoundOptions { timesteps: &plan, floor: None, stop: &stop, progress: &mut |_, _| {}, each: &mut |_, _| {} },
    )
    .unwrap();
    let lost = u64::from(estimate.timesteps[2].2.n_nonfinite);
    // NaN each time it is asked, which is an answer.
    assert!(lost > 0 && lost == estimate.n_nonfinite() && estimate.timesteps[2].2.vb.n == 20 - lost);
    assert!(estimate.bits_per_dim().is_nan());
    // Its floor is that of all examples. A floor that is no number is none.
    let finite = MixtureOracle::new(diffusion.gaussian().unwrap(), vec![Component { weight: 1.0, mean: vec![0.0], variance: 1.0 }]);
    let with_floor = |denoiser: &dyn Denoiser, floor: &dyn Denoiser| {
        let (progress, each) = (&mut |_, _| {}, &mut |_: usize, _: &[SampleTerms]| {});
        evaluate(&diffusion, denoiser, &x, BoundOptions { timesteps: &plan, floor: Some(floor), stop: &stop, progress, each })
    };
    let (broken, whole) = (with_floor(&Broken, &finite).unwrap(), with_floor(&finite, &finite).unwrap());
    assert!(broken.floor() == whole.floor() && broken.floors[2].vb.n == 20 && broken.floors[2].vb_excess.n == 20 - lost);
    assert!(broken.excess().unwrap().0.is_nan());
    let error = with_floor(&Broken, &Broken).unwrap_err().to_string();
    assert!(error.contains("at t = 3") && error.contains("best denoiser"), "{error}");
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let options = BoundOptions { timesteps: &plan, floor: None, stop: &stop, progress: &mut |_, _| {}, each: &mut |_, _| {} };
    assert!(matches!(evaluate(&diffusion, &Broken, &x, options), Err(Interrupted::Stopped)));
    assert!(matches!(ancestral(&diffusion, &Broken, 4, &stop), Err(Interrupted::Stopped)));
}

#[test]
fn a_denoiser_that_contradicts_itself_gives_no_bound() {
    use std::sync::atomic::{AtomicU32, Ordering};
    /// Predicts 0 but for one call; where it computes terms itself, they are `terms` throughout.
    struct Fickle {
        calls: AtomicU32,
        odd_call: u32,
        answer: f32,
        terms: Option<f64>,
    }
    impl Denoiser for Fickle {
        fn predict(&self, _: &[f32], _: &[Timestep], output: &mut [f32]) -> Result<(), DenoiserError> {
            let odd = self.calls.fetch_add(1, Ordering::Relaxed) == self.odd_call;
            output.fill(if odd { self.answer } else { 0.0 });
            Ok(())
        }
        fn batch(&self) -> usize {
            5
        }
        fn terms(&self, jobs: &[Job]) -> Option<Result<Vec<SampleTerms>, DenoiserError>> {
            let mse = self.terms?;
            Some(Ok(vec![SampleTerms { mse, x0_mse: mse, vb: mse }; jobs.len()]))
        }
    }
    let diffusion = Diffusion::new(&spec(ScheduleKind::Cosine, 8), point(1), Encoding::Continuous).unwrap();
    let x = gaussian_data(5, 1, 0.0, 1.0);
    let plan = TimestepPlan::all(8, 1);
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let ask = |odd_call, answer, terms| {
        let fickle = Fickle { calls: AtomicU32::new(0), odd_call, answer, terms };
        let found = one_thread.install(|| {
            let (progress, each) = (&mut |_, _| {}, &mut |_: usize, _: &[SampleTerms]| {});
            evaluate(&diffusion, &fickle, &x, BoundOptions { timesteps: &plan, floor: None, stop: &AtomicBool::new(false), progress, each })
        });
        (found.map(|e| e.bits_per_dim()).map_err(|e| e.to_string()), fickle.calls.into_inner())
    };
    // Eight calls, and the first and the last one again.
    let (bound, calls) = ask(99, 0.0, None);
    assert!(bound.unwrap().is_finite() && calls == 10);
    // NaN once: at once. Another number: where it is the first call, the last or a repetition.
    let odd = [(3, f32::NAN, 5, 4), (0, 0.01, 9, 1), (8, 0.01, 9, 1), (8, f32::NAN, 9, 1), (7, 0.01, 10, 8), (9, 0.01, 10, 8)];
    for (odd_call, answer, made, t) in odd {
        let (bound, calls) = ask(odd_call, answer, None);
        let error = bound.unwrap_err();
        assert!(error.contains(&format!("at t = {t} was computed twice and differently")) && calls == made, "{error} after {calls} calls");
    }
    // Terms of its own are held against those of its predictions.
    let (bound, calls) = ask(99, 0.0, Some(123.0));
    assert!(bound.unwrap_err().contains("terms of the bound 1.23e2 and") && calls == 1);
    let (bound, _) = ask(99, 0.0, Some(f64::NAN));
    assert!(bound.unwrap_err().contains("errors NaN and"));
}

/// Under cosine, whose last β is cut, an x_0 that is not clipped has most of its bound at t = T.
#[test]
fn a_bound_of_some_timesteps_has_the_last_one_in_it() {
    struct Zero;
    impl Denoiser for Zero {
        fn predict(&self, _: &[f32], _: &[Timestep], output: &mut [f32]) -> Result<(), DenoiserError> {
            output.fill(0.0);
            Ok(())
        }
        fn batch(&self) -> usize {
            64
        }
    }
    let diffusion = Diffusion::new(&spec(ScheduleKind::Cosine, 100), point(2), Encoding::Continuous).unwrap();
    let x = gaussian_data(300, 2, 0.0, 1.0);
    let bound = |plan: &TimestepPlan| {
        let (stop, progress, each) = (AtomicBool::new(false), &mut |_, _| {}, &mut |_: usize, _: &[SampleTerms]| {});
        evaluate(&diffusion, &Zero, &x, BoundOptions { timesteps: plan, floor: None, stop: &stop, progress, each }).unwrap()
    };
    let all = bound(&TimestepPlan::all(100, 1));
    assert!(all.timesteps[99].2.vb.mean > 0.5 * all.bits_per_dim(), "the last term is most of it");
    for plan in [TimestepPlan::strided(100, 50, 1, Spread::Noise), TimestepPlan::dense_head(100, 5, 50, 1, Spread::Noise)] {
        let some = bound(&plan);
        let off = (some.bits_per_dim() - all.bits_per_dim()).abs();
        assert!(off < 3.0 * some.choice_error() && off < 0.05 * all.bits_per_dim(), "{} {}", some.bits_per_dim(), all.bits_per_dim());
    }
}

#[test]
fn clipping_acts_in_evaluation_and_never_in_training() {
    let shape = Shape { height: 2, width: 2, channels: 1 };
    let spec = DiffusionSpec { clip_x0: true, ..spec(ScheduleKind::Linear, 1000) };
    let diffusion = GaussianDiffusion::new(&spec, shape, Encoding::Discrete { levels: 256 }).unwrap();
    let (x_0, noise, output) = ([0.5f32; 4], [0.1f32; 4], [3.0f32; 4]);
    let mut x_t = [0.0; 4];
    let t = Timestep::new(500).unwrap();
    diffusion.q_sample(t, &x_0, &noise, &mut x_t);
    let evaluated = diffusion.terms(t, &x_0, &x_t, &noise, &output);
    assert!((evaluated.x0_mse - 2.25).abs() < 1e-9, "clipped to -1: {evaluated:?}");
    let loss = LossSpec::plain(LossVariant::Vlb);
    for prediction in Prediction::ALL {
        let diffusion =
            GaussianDiffusion::new(&DiffusionSpec { prediction: *prediction, ..spec.clone() }, shape, Encoding::Discrete { levels: 256 })
                .unwrap();
        // The output that stands for an x_0 of 1.5.
        let output = x_t.map(|x| diffusion.output_for_x0(t, x.into(), 1.5) as f32);
        let (evaluated, mut gradient) = (diffusion.terms(t, &x_0, &x_t, &noise, &output), [0.0; 4]);
        let (_, trained) = diffusion.loss_and_gradient(&loss, t, &x_0, &x_t, &noise, &output, 1.0, &mut gradient);
        assert!((evaluated.x0_mse - 0.25).abs() < 1e-9 && (trained.x0_mse - 1.0).abs() < 1e-2, "{prediction}: {evaluated:?} {trained:?}");
        assert!(gradient.iter().all(|g| g.abs() > 0.0));
    }
    let mut gradient = [0.0; 4];
    let (_, trained) = diffusion.loss_and_gradient(&loss, t, &x_0, &x_t, &noise, &output, 1.0, &mut gradient);
    assert!(trained.x0_mse > 10.0 && gradient.iter().all(|g| *g > 0.0));
    assert_eq!(evaluated.mse, trained.mse);
}
