//! The least loss that any network could reach, beside the run's own.
//!
//! Start at [`Floors`]. Two different things go by that name, and neither stands in for the other:
//!
//! - where the *distribution* of the data is known (`gaussian_mixture`, `heartbeat`), the floor of every split: held-out
//!   examples are evaluated by the exact denoiser on the run's own draws, so the difference is known far better than either;
//! - of any other data only the training *examples* are known. Their exact posterior mean is the floor of the loss on the
//!   training set, which a network reaches by memorising it. It says nothing of held-out images: there it is no floor, a
//!   network that generalises lies below it, and none is stored.

use crate::config::{FloorChoice, RunConfig};
use crate::data::{self, DataSpec, Dataset, Examples};
use crate::diffusion::bound::{self, BoundOptions};
use crate::diffusion::oracle::{Component, MixtureOracle};
use crate::diffusion::timestep_plan::TimestepPlan;
use crate::diffusion::{Diffusion, Interrupted};
use crate::record::LossRow;
use std::sync::atomic::AtomicBool;

/// What is known of the least loss on one run's data.
pub struct Floors {
    population: Option<MixtureOracle>,
    /// (eps-MSE, term of the bound) at each t on training examples; empty until measured, and where it is not known.
    training: Vec<(f64, f64)>,
}

/// Training examples whose floor is averaged.
const IMAGES: usize = 64;
const POINTS: usize = 2000;
/// `auto` has the floor of the training examples computed where it costs at most this share of the training.
const SHARE: f64 = 0.01;

impl Floors {
    pub fn new(config: &RunConfig, diffusion: &Diffusion) -> Self {
        let population = if config.eval.floor == FloorChoice::Off { None } else { population(&config.data, diffusion) };
        Self { population, training: Vec::new() }
    }

    /// The exact denoiser of the data's distribution: a floor on every split.
    pub fn population(&self) -> Option<&MixtureOracle> {
        self.population.as_ref()
    }

    /// Averages the floor over training examples, on the current thread pool, as far as the configuration wants it;
    /// `training_flops` are those of the whole training. Nothing is known afterwards if it was asked to stop.
    pub fn measure_training(
        &mut self,
        config: &RunConfig,
        dataset: &Dataset,
        diffusion: &Diffusion,
        training_flops: f64,
        stop: &AtomicBool,
    ) {
        let shape = dataset.info.shape;
        let count = dataset.train.len().min(if shape.is_image() { IMAGES } else { POINTS });
        let atoms = dataset.train.len() * if config.data.flip { 2 } else { 1 };
        let cost = count as f64 * diffusion.timesteps() as f64 * MixtureOracle::flops(atoms, shape.dims());
        let wanted = match config.eval.floor {
            FloorChoice::Off => false,
            FloorChoice::On => true,
            FloorChoice::Auto => self.population.is_some() || cost <= SHARE * training_flops,
        };
        if !wanted {
            return;
        }
        let memorising = if self.population.is_some() { None } else { memorising(dataset, config.data.flip, diffusion) };
        let Some(oracle) = self.population.as_ref().or(memorising.as_ref()) else { return };
        // Evenly over the training set, whatever its order.
        let indices: Vec<usize> = (0..count).map(|i| i * dataset.train.len() / count).collect();
        let x_0 = scaled(&dataset.train, &indices);
        let plan = TimestepPlan::all(diffusion.timesteps(), 1);
        let options = BoundOptions { timesteps: &plan, floor: None, stop, progress: &mut |_, _| {}, each: &mut |_, _| {} };
        match bound::evaluate(diffusion, oracle, &x_0, options) {
            Ok(estimate) => self.training = estimate.timesteps.iter().map(|(_, _, e)| (e.mse.mean, e.mean_vb())).collect(),
            Err(Interrupted::Stopped) => {}
            Err(Interrupted::Denoiser(error)) => tracing::warn!("the floor of the training examples is not known: {error}"),
        }
    }

    /// Rows of training windows with the floor of their timesteps beside them.
    pub fn beside(&self, mut rows: Vec<LossRow>) -> Vec<LossRow> {
        for row in &mut rows {
            if let Some((mse, vb)) = (row.t as usize).checked_sub(1).and_then(|i| self.training.get(i)) {
                (row.mse_floor, row.vb_floor) = (Some(*mse), Some(*vb));
            }
        }
        rows
    }
}

/// The exact denoiser of built-in data whose distribution is known, under a Gaussian kernel.
pub fn population(spec: &DataSpec, diffusion: &Diffusion) -> Option<MixtureOracle> {
    let diffusion = diffusion.gaussian()?;
    if spec.path.is_some() {
        return None;
    }
    match spec.name.as_str() {
        "gaussian_mixture" => {
            let mixture = data::gaussian_mixture();
            let component =
                |(weight, mean): (&f64, &[f64; 2])| Component { weight: *weight, mean: mean.to_vec(), variance: mixture.std.powi(2) };
            Some(MixtureOracle::new(diffusion, mixture.weights.iter().zip(&mixture.means).map(component).collect()))
        }
        "heartbeat" => Some(MixtureOracle::atoms(diffusion, &data::heartbeats())),
        _ => None,
    }
}

/// The exact denoiser of the training examples themselves, mirrored ones too where training mirrors: what a network that has
/// memorised them computes. Under a Gaussian kernel.
pub fn memorising(dataset: &Dataset, flip: bool, diffusion: &Diffusion) -> Option<MixtureOracle> {
    let mut atoms = scaled(&dataset.train, &(0..dataset.train.len()).collect::<Vec<_>>());
    if flip {
        let mut mirrored = atoms.clone();
        mirrored.chunks_exact_mut(dataset.info.shape.dims()).for_each(|x| data::mirror(dataset.info.shape, x));
        atoms.extend(mirrored);
    }
    Some(MixtureOracle::atoms(diffusion.gaussian()?, &atoms))
}

/// Examples as the network sees them, in a row.
pub fn scaled(examples: &Examples, indices: &[usize]) -> Vec<f32> {
    let dims = examples.shape().dims();
    let mut x = vec![0.0; indices.len() * dims];
    x.chunks_exact_mut(dims).zip(indices).for_each(|(x, i)| examples.scaled(*i, x));
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::AxisOrder;
    use crate::diffusion::{
        DecoderCdf, Denoiser, DiffusionSpec, FirstLogVariance, Kernel, Prediction, ScheduleKind, ScheduleSpec, VarianceType,
    };

    fn builtin(name: &str) -> (DataSpec, Dataset, Diffusion) {
        let spec =
            DataSpec { name: name.to_owned(), path: None, dataset: None, layout: AxisOrder::Auto, flip: false, fingerprint: String::new() };
        let dataset = data::load(&spec).unwrap();
        let process = DiffusionSpec {
            kernel: Kernel::Gaussian,
            binomial_pi: 0.5,
            schedule: ScheduleKind::Cosine,
            timesteps: 20,
            gamma_min: ScheduleSpec::GAMMA.0,
            gamma_max: ScheduleSpec::GAMMA.1,
            betas: Vec::new(),
            zero_terminal_snr: false,
            prediction: Prediction::Epsilon,
            variance: VarianceType::FixedSmall,
            first_log_variance: FirstLogVariance::Copy,
            decoder_cdf: DecoderCdf::Tanh,
            clip_x0: false,
        };
        let diffusion = Diffusion::new(&process, dataset.info.shape, dataset.info.encoding).unwrap();
        (spec, dataset, diffusion)
    }

    /// By how much `denoiser` has a larger bound on test examples than `floor`, and the error of that.
    fn excess(dataset: &Dataset, diffusion: &Diffusion, denoiser: &MixtureOracle, floor: &MixtureOracle) -> (f64, f64) {
        let x_0 = scaled(&dataset.test, &(0..dataset.test.len().min(2000)).collect::<Vec<_>>());
        let stop = AtomicBool::new(false);
        let plan = TimestepPlan::all(20, 1);
        let floor = Some(floor as &dyn Denoiser);
        let options = BoundOptions { timesteps: &plan, floor, stop: &stop, progress: &mut |_, _| {}, each: &mut |_, _| {} };
        bound::evaluate(diffusion, denoiser, &x_0, options).unwrap().excess().unwrap()
    }

    #[test]
    fn the_stated_mixture_is_that_of_the_data_and_nothing_near_it_does_better() {
        let (spec, dataset, diffusion) = builtin("gaussian_mixture");
        let truth = population(&spec, &diffusion).unwrap();
        let mixture = data::gaussian_mixture();
        for (wider, shift) in [(1.2, 0.0), (0.8, 0.0), (1.0, 0.03)] {
            let components = mixture
                .means
                .iter()
                .map(|m| Component { weight: 0.125, mean: m.iter().map(|x| x + shift).collect(), variance: (wider * mixture.std).powi(2) })
                .collect();
            let near = MixtureOracle::new(diffusion.gaussian().unwrap(), components);
            let (value, error) = excess(&dataset, &diffusion, &near, &truth);
            assert!(value > 3.0 * error, "{wider} {shift}: {value} ± {error}");
        }
        // What has memorised 10,000 points is close, and worse.
        let memorised = memorising(&dataset, false, &diffusion).unwrap();
        let (value, error) = excess(&dataset, &diffusion, &memorised, &truth);
        assert!(value > 2.0 * error, "{value} ± {error}");
    }

    #[test]
    fn a_known_distribution_is_that_of_built_in_data_alone() {
        let (mut spec, dataset, diffusion) = builtin("heartbeat");
        assert!(population(&spec, &diffusion).is_some());
        let sequences = data::heartbeats();
        for x in scaled(&dataset.test, &(0..200).collect::<Vec<_>>()).chunks_exact(20) {
            assert!(sequences.chunks_exact(20).any(|s| s == x), "{x:?}");
        }
        assert_eq!(sequences.len(), 5 * 20);
        spec.path = Some("somewhere.h5".into());
        assert!(population(&spec, &diffusion).is_none(), "a file may be called anything");
        let (spec, _, diffusion) = builtin("digits");
        assert!(population(&spec, &diffusion).is_none());
    }
}
