//! The device's way of training against the host's: on the CPU through the emulator, and on a GPU where the build and the
//! machine have one (`just test-cuda`).

use super::trainer::{Outcome, RunOptions, Trainer};
use super::{Network, TrainError};
use crate::config::{RunConfig, from_text};
use crate::data;
use crate::diffusion::Denoiser;
use crate::diffusion::bound::{BoundOptions, evaluate};
use crate::diffusion::timestep_plan::TimestepPlan;
use crate::diffusion::{Diffusion, GaussianDiffusion};
use crate::model::Model;
use crate::ops::cuda::{self, DeviceExamples, DeviceProcess, Fed, Placed, launches, stand_aside, standing_in};
use crate::optim::Weights;
use crate::record::{Event, LossRow, Split};
use crate::rng::{Purpose, stream};
use crate::store::{Provenance, ResultsStore, RunDir, read_rows};
use crate::units::Timestep;
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// The only run of an experiment on the real data.
fn config(text: &str) -> RunConfig {
    let inspect = |spec: &data::DataSpec| data::inspect(spec).map_err(|e| e.to_string());
    from_text(Path::new("test.toml"), text, &[], &inspect).unwrap_or_else(|e| panic!("{text}: {:#?}", e.faults())).runs[0].config.clone()
}

const EVERY_DAY: &str = "
[base]
train.steps = 21
train.batch_size = 4
train.micro_batch = 4
train.grad_clip = 0.5
train.ema = 0.9
train.weight_decay = 0.01
log.every = 4
eval = { every = 10, images = 3, timesteps = 'strided:3', test_images = 2 }
sample.count = 0
diffusion.timesteps = 25
diffusion.schedule = 'linear_scaled'
";

const NETWORKS: [&str; 4] = [
    "data = 'digits'\nmodel = { channels = [4, 8], layers_per_block = 1, norm_groups = 2, attention = [4], dropout = 0.2 }",
    "data = 'swiss_roll'\nmodel = { channels = [12, 12], dropout = 0.2 }\nloss.variant = 'vlb'",
    "data = 'digits'\nmodel = { kind = 'transformer', channels = [16], depth = 3, patch = 4, head_channels = 8, dropout = 0.1 }\ndiffusion.prediction = 'v'",
    "data.name = 'digits'\nmodel = { kind = 'mlp', channels = [16] }\ndiffusion.variance = 'learned_range'\nloss.variant = 'hybrid'\ndata.flip = true\ntrain.timestep_sampler = 'stratified'\nloss.weighting = 'min_snr'",
];

/// What a run left behind.
struct Left {
    outcome: Outcome,
    rows: Vec<LossRow>,
    weights: Weights,
    /// (updates done, loss) as reported on the way.
    losses: Vec<(u32, f64)>,
}

struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// Trains, and asks to stop once `stop_at` updates are reported.
    fn train(&self, config: &RunConfig, device: &Device, stop_at: Option<u32>) -> Result<Left, TrainError> {
        let store = ResultsStore::open(self.folder.path()).unwrap();
        let dir: RunDir = store.run_dir(&config.slug(), &config.id().0).unwrap();
        dir.create(&config.to_toml()).unwrap();
        let _lock = dir.try_lock().unwrap().expect("nobody else is here");
        let stop = AtomicBool::new(false);
        let losses = Mutex::new(Vec::new());
        let options = RunOptions {
            device,
            threads: 1,
            checkpoint_every: 5,
            allow_code_change: false,
            keep: false,
            stop: &stop,
            provenance: Provenance::default(),
            host: String::new(),
            now: || 0.0,
        };
        let listen = |event| {
            if let Event::Progress { step, loss, .. } = event {
                losses.lock().unwrap().push((step, loss));
            }
            if let Event::Checkpointed { step } = event
                && Some(step) == stop_at
            {
                stop.store(true, Ordering::Relaxed);
            }
        };
        let (emulated, before) = (device.is_cpu() && cuda::is_device(device), launches());
        let outcome = Trainer::new(config, &dir, options, listen)?.run()?;
        assert!(!emulated || launches() > before + 5 * u64::from(config.train.steps.min(5)), "the device was never asked");
        let restore = |path: std::path::PathBuf| {
            let (bytes, timesteps) = (std::fs::read(path).unwrap(), config.diffusion.timesteps as usize);
            super::checkpoint::decode(model(config).layout(), &config.id().0, timesteps, &bytes).unwrap().0
        };
        // A run that diverged early has none.
        let weights = dir.checkpoints().unwrap().pop().map_or(Weights::new(Vec::new()), |(_, newest)| restore(newest));
        Ok(Left { outcome, rows: read_rows(dir.path()).unwrap(), weights, losses: losses.into_inner().unwrap() })
    }
}

fn diffusion(config: &RunConfig) -> Diffusion {
    let info = data::inspect(&config.data).unwrap();
    Diffusion::new(&config.diffusion, info.shape, info.encoding).unwrap()
}

fn model(config: &RunConfig) -> Model {
    Model::new(&config.model, data::inspect(&config.data).unwrap().shape, diffusion(config).output_channels()).unwrap()
}

/// Largest difference over the largest magnitude.
fn off(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(1e-3_f32, |m, x| m.max(x.abs()));
    a.iter().zip(b).fold(0.0, |m: f32, (x, y)| if x.is_finite() { m.max((x - y).abs()) } else { f32::INFINITY }) / largest
}

/// Demands that two runs saw the same: every row of every split, the weights, their average and the moments.
fn agree(ours: &Left, host: &Left, tolerance: f64) {
    assert_eq!(ours.outcome, host.outcome);
    assert_eq!(ours.rows.len(), host.rows.len());
    let near = |a: f64, b: f64| (a - b).abs() <= tolerance * b.abs().max(0.1) || (a.is_nan() && b.is_nan());
    for (a, b) in ours.rows.iter().zip(&host.rows) {
        assert_eq!((a.split, a.step, a.t, a.n, a.n_nonfinite), (b.split, b.step, b.t, b.n, b.n_nonfinite));
        let pairs = [(a.vb.0, b.vb.0), (a.vb.1, b.vb.1)]
            .into_iter()
            .chain(a.mse.zip(b.mse).into_iter().flat_map(|(a, b)| [(a.0, b.0), (a.1, b.1)]))
            .chain(a.x0_mse_mean.zip(b.x0_mse_mean))
            .chain(a.grad_norm_mean.zip(b.grad_norm_mean));
        pairs.for_each(|(x, y)| assert!(near(x, y), "{x} is not {y}: {a:?} {b:?}"));
        assert_eq!((a.mse.is_some(), a.grad_norm_mean.is_some()), (b.mse.is_some(), b.grad_norm_mean.is_some()));
    }
    assert_eq!(ours.weights.step, host.weights.step);
    let buffers = |w: &Weights| [w.raw.clone(), w.ema.clone(), w.first_moment.clone(), w.second_moment.clone()];
    for (which, (a, b)) in buffers(&ours.weights).iter().zip(buffers(&host.weights)).enumerate() {
        assert!(f64::from(off(a, &b)) < tolerance, "buffer {which} is {} off", off(a, &b));
    }
    let (last_ours, last_host) = (ours.losses.last().unwrap(), host.losses.last().unwrap());
    assert_eq!(last_ours.0, last_host.0);
    assert!(near(last_ours.1, last_host.1), "loss of the last step: {last_ours:?} {last_host:?}");
}

/// Whole runs: windows of losses, evaluations, weights.
fn runs_agree_with_the_host(device: &Device, networks: &[&str], tolerance: f64) {
    for network in networks {
        let config = config(&format!("{EVERY_DAY}{network}"));
        let ours = Lab::new().train(&config, device, None).unwrap();
        let host = aside(|| Lab::new().train(&config, &Device::Cpu, None).unwrap());
        assert_eq!(ours.outcome, Outcome::Done);
        assert!(ours.rows.iter().any(|r| r.split == Split::Test) && ours.rows.iter().any(|r| r.split == Split::Train));
        agree(&ours, &host, tolerance);
    }
}

fn aside<R>(f: impl FnOnce() -> R) -> R {
    stand_aside(f)
}

#[test]
fn an_emulated_device_trains_as_the_host_does() {
    // The U-Net is too much for the emulator; its steps are below.
    standing_in(|| runs_agree_with_the_host(&Device::Cpu, &NETWORKS[1..], 2e-3));
}

/// One step at a time: the loss, the norm and the weights after each, from the same start.
#[test]
fn every_step_of_an_emulated_device_is_that_of_the_host() {
    standing_in(|| {
        for network in NETWORKS {
            let config = config(&format!("{EVERY_DAY}{network}\nlog.every = 1").replace("log.every = 4", ""));
            let steps = RunConfig { train: crate::config::TrainSpec { steps: 3, ..config.train.clone() }, ..config };
            let ours = Lab::new().train(&steps, &Device::Cpu, None).unwrap();
            let host = aside(|| Lab::new().train(&steps, &Device::Cpu, None).unwrap());
            agree(&ours, &host, 1e-4);
        }
    });
}

fn a_stopped_run_goes_on_as_if_it_had_not(device: &Device, tolerance: f64) {
    let config = config(&format!("{EVERY_DAY}{}", NETWORKS[1]));
    let whole = Lab::new().train(&config, device, None).unwrap();
    let lab = Lab::new();
    let stopped = lab.train(&config, device, Some(5)).unwrap();
    assert!(matches!(stopped.outcome, Outcome::Interrupted { step } if (5..21).contains(&step)), "{:?}", stopped.outcome);
    let resumed = lab.train(&config, device, None).unwrap();
    if tolerance == 0.0 {
        assert_eq!((&resumed.rows, &resumed.weights), (&whole.rows, &whole.weights));
    } else {
        agree(&resumed, &whole, tolerance);
    }
    // And from the device to the host and back: a checkpoint does not know where it was made.
    let lab = Lab::new();
    lab.train(&config, device, Some(5)).unwrap();
    let on_the_host = aside(|| lab.train(&config, &Device::Cpu, None).unwrap());
    agree(&on_the_host, &whole, tolerance.max(2e-3));
}

#[test]
fn a_stopped_emulated_run_goes_on_to_the_bit() {
    standing_in(|| a_stopped_run_goes_on_as_if_it_had_not(&Device::Cpu, 0.0));
}

fn a_run_that_diverges_ends_where_the_hosts_does(device: &Device) {
    let config = config(&format!("{EVERY_DAY}{}\ntrain.lr = 1e30", NETWORKS[3]).replace("grad_clip = 0.5", "grad_clip = 0.0"));
    let diverged = |device: &Device| {
        let left = Lab::new().train(&config, device, None).unwrap();
        (left.outcome, left.rows.iter().map(|r| (r.step, r.t, r.n, r.n_nonfinite)).collect::<Vec<_>>())
    };
    let (ours, host) = (diverged(device), aside(|| diverged(&Device::Cpu)));
    assert!(matches!(host.0, Outcome::Diverged { step } if step > 1), "{:?}", host.0);
    assert_eq!(ours, host);
}

#[test]
fn an_emulated_run_that_diverges_ends_where_the_hosts_does() {
    standing_in(|| a_run_that_diverges_ends_where_the_hosts_does(&Device::Cpu));
}

#[test]
fn bits_are_trained_on_an_emulated_device_with_the_hosts_loss() {
    standing_in(|| {
        let config = config(&format!(
            "{EVERY_DAY}data = 'heartbeat'\nmodel = {{ channels = [12] }}\ndiffusion.kernel = 'binomial'\ndiffusion.clip_x0 = false"
        ));
        let ours = Lab::new().train(&config, &Device::Cpu, None).unwrap();
        agree(&ours, &aside(|| Lab::new().train(&config, &Device::Cpu, None).unwrap()), 2e-3);
    });
}

/// Where the next draws depend on the losses of the last, the device is asked after every step.
fn a_sampler_that_learns_draws_what_it_draws_on_the_host(device: &Device) {
    let text = EVERY_DAY.replace("timesteps = 25", "timesteps = 4").replace("linear_scaled", "cosine");
    let config = config(&format!("{text}{}\ntrain.timestep_sampler = 'loss_second_moment'", NETWORKS[1]));
    let ours = Lab::new().train(&config, device, None).unwrap();
    agree(&ours, &aside(|| Lab::new().train(&config, &Device::Cpu, None).unwrap()), 5e-3);
}

#[test]
fn a_sampler_that_learns_draws_on_an_emulated_device_what_it_draws_on_the_host() {
    standing_in(|| a_sampler_that_learns_draws_what_it_draws_on_the_host(&Device::Cpu));
}

/// bf16 rounds every result to 8 bits: the run is another one than the host's in f32, but not far.
fn bf16_trains_like_f32(device: &Device, steps: u32) {
    for network in NETWORKS {
        let of = |more: &str| config(&format!("{EVERY_DAY}{network}{more}").replace("steps = 21", &format!("steps = {steps}")));
        let (f32_run, bf16_run) = (of(""), of("\ntrain.dtype = 'bf16'"));
        assert_ne!(f32_run.id(), bf16_run.id());
        let ours = Lab::new().train(&bf16_run, device, None).unwrap();
        let host = aside(|| Lab::new().train(&f32_run, &Device::Cpu, None).unwrap());
        assert_ne!(ours.weights.raw, host.weights.raw);
        let bound = |left: &Left| left.rows.iter().filter(|r| r.split == Split::Test).map(|r| r.t_weight * r.vb.0).sum::<f64>();
        assert!((bound(&ours) / bound(&host) - 1.0).abs() < 0.1, "{network}: {} {}", bound(&ours), bound(&host));
        let start = Weights::new(model(&f32_run).layout().init(f32_run.seed as u64)).raw;
        let moved = |left: &Left| left.weights.raw.iter().zip(&start).map(|(w, s)| f64::from(w - s)).collect::<Vec<_>>();
        let (a, b) = (moved(&ours), moved(&host));
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let cosine = dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt();
        assert!(cosine > 0.9, "{network}: the weights went elsewhere, by a cosine of {cosine}");
    }
}

#[test]
fn bf16_trains_on_an_emulated_device_and_is_refused_by_a_cpu() {
    standing_in(|| bf16_trains_like_f32(&Device::Cpu, 2));
    for (line, setting) in
        [("train.dtype = 'bf16'", "train.dtype = \"bf16\""), ("train.matmul_precision = 'tf32'", "train.matmul_precision = \"tf32\"")]
    {
        let config = config(&format!("{EVERY_DAY}{line}"));
        let error = Lab::new().train(&config, &Device::Cpu, None).err().expect("a CPU has no such arithmetic");
        assert!(matches!(&error, TrainError::Precision { setting: s } if *s == setting), "{error}");
    }
}

/// The kernel of the loss against the host's closed forms: predictions, variances, losses, decoders, first and later t.
fn losses_are_those_of_the_host(device: &Device) {
    let mut configs = Vec::new();
    let losses =
        [("fixed_small", "simple"), ("fixed_large", "vlb"), ("learned_range", "vlb"), ("learned_range", "hybrid"), ("learned", "hybrid")];
    for data in ["digits", "swiss_roll", "fashion_mnist_small"] {
        for prediction in ["epsilon", "x0", "v", "mean"] {
            for (variance, loss) in losses {
                let cdf = match (data, configs.len() % 2) {
                    ("swiss_roll", _) => "",
                    (_, 0) => "\ndiffusion.decoder_cdf = 'erf'",
                    _ => "\ndiffusion.decoder_cdf = 'tanh'",
                };
                let weighting = if prediction == "epsilon" && loss != "vlb" { "min_snr" } else { "constant" };
                configs.push(format!(
                    "{EVERY_DAY}data = '{data}'\ndiffusion.prediction = '{prediction}'\ndiffusion.variance = '{variance}'\nloss.variant = '{loss}'\nloss.weighting = '{weighting}'{cdf}"
                ));
            }
        }
    }
    for text in configs {
        let config = config(&text);
        let diffusion = diffusion(&config);
        let gaussian = diffusion.gaussian().unwrap();
        let dataset = data::load(&config.data).unwrap();
        let examples = DeviceExamples::new(device, dataset.info.shape, dataset.train.stored()).unwrap();
        let placed: Vec<Placed> = [0, 1, 2, 7, 19, 0, 0]
            .iter()
            .enumerate()
            .map(|(i, t)| Placed {
                example: i,
                mirrored: false,
                t: Timestep::from_index(*t),
                stream: stream(1, Purpose::Noise, 4),
                sample: i as u32,
            })
            .collect();
        let scales: Vec<f64> = (0..placed.len()).map(|i| 0.1 + i as f64).collect();
        // An output near what is true, and one far off: bins of no mass, clipped predictions.
        for size in [0.05, 3.0] {
            let mut output = vec![0.0_f32; placed.len() * gaussian.output_dims()];
            stream(2, Purpose::Noise, 1).normals(0, &mut output);
            output.iter_mut().for_each(|x| *x *= size);
            check_loss(device, gaussian, &config, &examples, &placed, &scales, &output, &text);
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "one case of the test above")]
fn check_loss(
    device: &Device,
    gaussian: &GaussianDiffusion,
    config: &RunConfig,
    examples: &DeviceExamples,
    placed: &[Placed],
    scales: &[f64],
    output: &[f32],
    text: &str,
) {
    let (dims, output_dims) = (gaussian.shape().dims(), gaussian.output_dims());
    let on_device = Tensor::from_slice(output, (placed.len(), output_dims), device).unwrap();
    let terms = Tensor::zeros((placed.len(), 4), DType::F64, device).unwrap();
    let scale_table = Fed::new(device, scales.len(), DType::F64).unwrap();
    scale_table.write(scales).unwrap();
    for training in [true, false] {
        let process = DeviceProcess::new(device, gaussian.coefficients(training.then_some(&config.loss))).unwrap();
        let places = process.places(examples, placed).unwrap();
        let batch = process.draw(examples, &Tensor::from_vec(places, (placed.len(), 8), device).unwrap()).unwrap();
        let slope = process.loss(&batch, &on_device, training.then_some(&scale_table), &terms).unwrap();
        assert_eq!(slope.is_some(), training);
        let got = terms.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let home = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let (x_0, noise, x_t) = (home(&batch.x_0), home(&batch.noise), home(&batch.x_t));
        for (i, s) in placed.iter().enumerate() {
            let (at, out) = (i * dims..(i + 1) * dims, i * output_dims..(i + 1) * output_dims);
            let (x_0, x_t, noise, output) = (&x_0[at.clone()], &x_t[at.clone()], &noise[at], &output[out.clone()]);
            let mut want_slope = vec![0.0; output_dims];
            let (loss, want) = gaussian.loss_and_gradient(&config.loss, s.t, x_0, x_t, noise, output, scales[i], &mut want_slope);
            let want = if training { want } else { gaussian.terms(s.t, x_0, x_t, noise, output) };
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b.abs().max(1e-3) || (a.is_nan() && b.is_nan());
            let ok = near(got[4 * i], want.mse) && near(got[4 * i + 1], want.x0_mse) && near(got[4 * i + 2], want.vb);
            assert!(
                ok && (!training || near(got[4 * i + 3], loss)),
                "{text} at {:?}: {:?} is not {want:?}, {loss}",
                s.t,
                &got[4 * i..4 * i + 4]
            );
            if let Some(slope) = &slope {
                assert!(off(&home(slope)[out], &want_slope) < 1e-6, "{text} at {:?}: the slope", s.t);
            }
        }
    }
}

#[test]
fn emulated_losses_are_those_of_the_host() {
    standing_in(|| losses_are_those_of_the_host(&Device::Cpu));
}

/// The bound, its network and its terms all through the device's operations: in one batch, and in many that threads ask for
/// at once, most of which a device does as it has recorded them. `tolerance` of a term, relative.
fn bounds_are_those_of_the_host(device: &Device, networks: &[&str], tolerance: f64) {
    for network in networks {
        let config = config(&format!("{EVERY_DAY}{network}"));
        let (diffusion, model) = (diffusion(&config), model(&config));
        let dataset = data::load(&config.data).unwrap();
        let dims = dataset.info.shape.dims();
        let mut x_0 = vec![0.0; 3 * dims];
        x_0.chunks_exact_mut(dims).enumerate().for_each(|(i, x)| dataset.test.scaled(i, x));
        // Weights that put out something: at their start the last layers are zero.
        let weights: Vec<f32> = model.layout().init(3).iter().enumerate().map(|(i, w)| w + 0.05 * (i as f32).sin()).collect();
        let bound = |device: &Device, asked_at_once: Option<usize>| {
            let mut network = Network::new(&model, &weights, dataset.info.shape, device).unwrap().with_terms(&diffusion, &x_0).unwrap();
            network.asked_at_once = asked_at_once;
            let pool = cuda::threads_like_this().num_threads(16).build().unwrap();
            let plan = TimestepPlan::all(diffusion.timesteps(), 2);
            let stop = AtomicBool::new(false);
            pool.install(|| {
                let options = BoundOptions { timesteps: &plan, floor: None, stop: &stop, progress: &mut |_, _| {}, each: &mut |_, _| {} };
                evaluate(&diffusion, &network, &x_0, options).unwrap()
            })
        };
        let host = aside(|| bound(&Device::Cpu, None));
        for asked_at_once in [None, Some(8)] {
            let ours = bound(device, asked_at_once);
            let (a, b) = (ours.bits_per_dim(), host.bits_per_dim());
            assert!((a / b - 1.0).abs() < 0.1 * tolerance, "{network}, {asked_at_once:?}: {a} {b}");
            for ((t, _, a), (_, _, b)) in ours.timesteps.iter().zip(&host.timesteps) {
                assert_eq!(a.vb.n, b.vb.n);
                assert!((a.vb.mean - b.vb.mean).abs() < tolerance * b.vb.mean.abs().max(0.01), "{t:?}: {} {}", a.vb.mean, b.vb.mean);
                assert!((a.mse.mean - b.mse.mean).abs() < tolerance * b.mse.mean, "{t:?}: {} {}", a.mse.mean, b.mse.mean);
            }
        }
    }
}

#[test]
fn emulated_bounds_are_those_of_the_host() {
    standing_in(|| bounds_are_those_of_the_host(&Device::Cpu, &NETWORKS, 1e-4));
}

/// Batches of many sizes, from more threads than a device can listen to, some of which it records while others wait for
/// theirs. `tolerance`: a library may sum in another order where it is recorded.
fn threads_do_not_disturb_each_other(device: &Device, tolerance: f32) {
    let config = config(&format!("{EVERY_DAY}{}", NETWORKS[3]));
    let (diffusion, model) = (diffusion(&config), model(&config));
    let dataset = data::load(&config.data).unwrap();
    let (shape, dims) = (dataset.info.shape, dataset.info.shape.dims());
    let weights: Vec<f32> = model.layout().init(3).iter().enumerate().map(|(i, w)| w + 0.05 * (i as f32).sin()).collect();
    let x = crate::ops::check::random(&[24 * dims], 7).to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
    let t: Vec<Timestep> = (0..24).map(Timestep::from_index).collect();
    let network = || Network::new(&model, &weights, shape, device).unwrap();
    let predict = |network: &Network<'_>, size: usize| {
        let mut output = vec![0.0; size * diffusion.output_dims()];
        network.predict(&x[..size * dims], &t[..size], &mut output).map(|()| output)
    };
    let alone = network();
    let want: Vec<Vec<f32>> = (1..=24).map(|size| predict(&alone, size).unwrap()).collect();
    let crowd = network();
    let pool = cuda::threads_like_this().num_threads(16).build().unwrap();
    let jobs: Vec<usize> = (0..8 * 24).map(|i| i / 8 + 1).collect();
    pool.install(|| {
        jobs.par_iter().with_max_len(1).for_each(|&size| {
            let found = predict(&crowd, size).unwrap_or_else(|e| panic!("{size}: {e}"));
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= tolerance * b.abs().max(1.0);
            assert!(found.iter().zip(&want[size - 1]).all(near), "{size} samples are others in a crowd than alone");
        });
    });
}

#[test]
fn threads_do_not_disturb_each_other_on_an_emulated_device() {
    standing_in(|| threads_do_not_disturb_each_other(&Device::Cpu, 0.0));
}

/// `just test-cuda`: the same on a GPU.
#[cfg(feature = "cuda")]
mod on_a_gpu {
    use super::*;

    fn device() -> Device {
        cuda::open(0).unwrap_or_else(|e| panic!("these tests need a GPU: {e}"))
    }

    #[test]
    #[ignore = "needs a GPU: just test-cuda"]
    fn cuda_losses_are_those_of_the_host() {
        losses_are_those_of_the_host(&device());
    }

    #[test]
    #[ignore = "needs a GPU: just test-cuda"]
    fn cuda_bounds_are_those_of_the_host() {
        bounds_are_those_of_the_host(&device(), &NETWORKS, 1e-4);
    }

    /// Where cuDNN's convolutions are, with its workspace.
    #[test]
    #[ignore = "needs a GPU: just test-cuda"]
    fn cuda_bounds_in_tf32_are_near_those_of_the_host() {
        struct Exact;
        impl Drop for Exact {
            fn drop(&mut self) {
                cuda::allow_tf32(false);
            }
        }
        let (device, _exact) = (device(), Exact);
        cuda::allow_tf32(true);
        bounds_are_those_of_the_host(&device, &NETWORKS, 2e-2);
    }

    #[test]
    #[ignore = "needs a GPU: just test-cuda"]
    fn cuda_keeps_threads_apart() {
        threads_do_not_disturb_each_other(&device(), 1e-4);
    }

    #[test]
    #[ignore = "needs a GPU: just test-cuda"]
    fn cuda_trains_as_the_host_does() {
        runs_agree_with_the_host(&device(), &NETWORKS, 5e-3);
    }

    #[test]
    #[ignore = "needs a GPU: just test-cuda"]
    fn cuda_draws_as_it_learns() {
        a_sampler_that_learns_draws_what_it_draws_on_the_host(&device());
    }

    #[test]
    #[ignore = "needs a GPU: just test-cuda"]
    fn cuda_stops_and_goes_on() {
        a_stopped_run_goes_on_as_if_it_had_not(&device(), 1e-3);
    }

    #[test]
    #[ignore = "needs a GPU: just test-cuda"]
    fn cuda_diverges_where_the_host_does() {
        a_run_that_diverges_ends_where_the_hosts_does(&device());
    }

    #[test]
    #[ignore = "needs a GPU: just test-cuda"]
    fn cuda_trains_in_bf16() {
        bf16_trains_like_f32(&device(), 21);
    }
}
