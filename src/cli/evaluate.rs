//! `evaluate`: the bound of a trained run again, on any split, as closely as wanted.
//!
//! Without options it is the run's own final evaluation. The run's folder is left alone: what is to be kept goes where
//! `--parquet` and `--arrays` say, whole or not at all.

use super::output::{Table, print};
use super::{CliError, StoreArgs, exit};
use crate::config::RunConfig;
use crate::data::hdf5::{ArrayOut, ArrayValues, Attribute, write_arrays};
use crate::data::{Encoding, Examples};
use crate::diffusion::SampleTerms;
use crate::diffusion::bound::BoundEstimate;
use crate::diffusion::oracle::MixtureOracle;
use crate::diffusion::rate::{RatePoint, rate_distortion, table};
use crate::diffusion::timestep_plan::{Spread, TimestepPlan};
use crate::record::{Moments, Split, Weights};
use crate::store::{RunDir, write_rows};
use crate::sweep::{StopReason, StopRequest};
use crate::train::{self, DeviceChoice, Inspection, TrainError, Trained, columns_of, floor, rows_of, summary_of};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::AtomicBool;

/// `--timesteps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timesteps {
    All,
    /// Strata.
    Strided(u32),
    /// Length of the head (T/20 where not given) and strata of the rest.
    DenseHead(Option<u32>, u32),
}

/// Strata beyond a dense head.
const STRATA: u32 = 50;

impl FromStr for Timesteps {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let number = |s: &str| s.parse::<u32>().ok().filter(|n| *n > 0 && s.bytes().all(|b| b.is_ascii_digit()));
        let parsed = match s.split(':').collect::<Vec<_>>()[..] {
            ["all"] => Some(Self::All),
            ["strided", k] => number(k).map(Self::Strided),
            ["dense-head"] => Some(Self::DenseHead(None, STRATA)),
            ["dense-head", head] => number(head).map(|h| Self::DenseHead(Some(h), STRATA)),
            ["dense-head", head, k] => number(head).zip(number(k)).map(|(h, k)| Self::DenseHead(Some(h), k)),
            _ => None,
        };
        parsed.ok_or_else(|| format!("`{s}` is no choice of timesteps; allowed: all, strided:K, dense-head, dense-head:H, dense-head:H:K"))
    }
}

impl Timesteps {
    fn plan(self, timesteps: usize, draws: u32) -> TimestepPlan {
        match self {
            Self::All => TimestepPlan::all(timesteps, draws),
            Self::Strided(k) => TimestepPlan::strided(timesteps, k, draws, Spread::Timesteps),
            Self::DenseHead(head, k) => {
                let head = head.map_or(timesteps.div_ceil(20), |h| h as usize);
                TimestepPlan::dense_head(timesteps, head, k, draws, Spread::Timesteps)
            }
        }
    }
}

#[derive(clap::Args)]
pub struct EvaluateArgs {
    /// A run id, a unique prefix of one, a run folder, or `latest`.
    run: String,
    #[command(flatten)]
    store: StoreArgs,
    /// train, val or test.
    #[arg(long, default_value = "test")]
    split: Split,
    /// Examples: the first so many (of train: so many spread over it). Default: as many as the run's own evaluations.
    #[arg(long, value_name = "N")]
    images: Option<usize>,
    /// all; strided:K: t = 1, t = T and one t in each of K − 2 strata between that widen geometrically; dense-head[:H[:K]]: each
    /// t up to H (default T/20) and one in each of K strata beyond (default 50), T by itself. The last two are unbiased estimates.
    #[arg(long, default_value = "all", value_name = "WHICH")]
    timesteps: Timesteps,
    /// Draws for each example: of noise, and of other timesteps in each stratum. With two and more the error of choosing t is
    /// known from the strata themselves; with one, from neighbouring strata, on the large side. Default: the run's own.
    #[arg(long, value_name = "N")]
    draws: Option<u32>,
    /// ema or raw.
    #[arg(long, default_value = "ema")]
    weights: Weights,
    /// The checkpoint of this step. Default: the newest.
    #[arg(long)]
    step: Option<u32>,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Threads. Default: one for each core.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Add a table of rate and distortion, as in DDPM's Table 4.
    #[arg(long)]
    rate_distortion: bool,
    /// Add a table of train against held-out examples, both beside a network that has memorised the training set.
    #[arg(long)]
    memorisation: bool,
    /// Write the terms of every example at every t to this HDF5 file.
    #[arg(long, value_name = "FILE.h5")]
    arrays: Option<PathBuf>,
    /// Write rows as in losses.parquet to this file, which must lie outside the results folder.
    #[arg(long, value_name = "FILE.parquet")]
    parquet: Option<PathBuf>,
    /// For machines: one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn evaluate(args: &EvaluateArgs) -> Result<i32, CliError> {
    let store = args.store.existing()?;
    let dir = store.find(&args.run)?;
    for path in args.arrays.iter().chain(&args.parquet) {
        let folder = folder_of(path);
        if !folder.is_dir() {
            return Err(CliError::input(format!("there is no folder {}", folder.display()), "name a file in a folder that exists"));
        }
    }
    if let Some(path) = &args.parquet {
        refuse_inside(path, store.root())?;
    }
    let config = RunConfig::from_toml(&dir.path().join("config.toml"), &dir.config_text()?)?;
    let run = Trained::open(config, &dir, args.step).map_err(CliError::from)?;
    let images = args.images.unwrap_or(match args.split {
        Split::Val => run.config.eval.images,
        Split::Train | Split::Test => run.config.eval.test_images,
    } as usize);
    let available = run.split(args.split).len();
    if images == 0 || images > available {
        return Err(CliError::input(
            format!("`{}` has {available} examples, not {images}", args.split),
            format!("--images 1 to {available}"),
        ));
    }
    let draws = args.draws.unwrap_or(run.config.eval.draws);
    if draws == 0 {
        return Err(CliError::input("--draws is 0, but an evaluation needs noise", "--draws 1 or more"));
    }
    let timesteps = run.diffusion.timesteps();
    if let Timesteps::Strided(k) = args.timesteps
        && k as usize > timesteps
    {
        return Err(CliError::input(
            format!("an evaluation cannot visit {k} of {timesteps} timesteps"),
            format!("at most strided:{timesteps}, or all"),
        ));
    }
    let (device, _) = args.device.open().map_err(CliError::from)?;
    let (request, stop) = StopRequest::with_flag().map_err(|e| CliError::Internal(format!("signals cannot be caught: {e}")))?;
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|e| CliError::Internal(format!("could not start {threads} threads: {e}")))?;
    let job = Job { args, run: &run, images, plan: args.timesteps.plan(timesteps, draws), device: &device, pool: &pool, stop: &stop };
    match job.run(&dir) {
        Ok(text) => {
            print(&text);
            Ok(exit::DONE)
        }
        Err(Failure::Stopped) => {
            super::output::complain("stopped; nothing was written\n");
            Ok(i32::from(StopReason::Signal(request.requested().unwrap_or(signal_hook::consts::SIGINT)).exit_code()))
        }
        Err(Failure::Told(error)) => Err(error),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file inside the results folder would be read as rows of a run.
fn refuse_inside(path: &Path, root: &Path) -> Result<(), CliError> {
    let canonical = |p: &Path| p.canonicalize().map_err(|e| CliError::input(format!("{}: {e}", p.display()), "name another file"));
    if canonical(folder_of(path))?.starts_with(canonical(root)?) {
        return Err(CliError::input(
            format!("{} lies in the results folder, whose Parquet is read as a whole: its rows would count twice", path.display()),
            "write it elsewhere",
        ));
    }
    Ok(())
}

/// Why there is no answer.
enum Failure {
    Stopped,
    Told(CliError),
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        if matches!(error, TrainError::Stopped) { Self::Stopped } else { Self::Told(error.into()) }
    }
}

impl From<CliError> for Failure {
    fn from(error: CliError) -> Self {
        Self::Told(error)
    }
}

/// One evaluation as asked for.
struct Job<'a> {
    args: &'a EvaluateArgs,
    run: &'a Trained,
    images: usize,
    plan: TimestepPlan,
    device: &'a train::Device,
    pool: &'a rayon::ThreadPool,
    stop: &'a AtomicBool,
}

/// What every example had at every visit, `[N, visits]`.
struct Arrays {
    visits: usize,
    vb: Vec<f32>,
    mse: Vec<f32>,
    x0_mse: Vec<f32>,
}

impl Arrays {
    fn new(images: usize, visits: usize) -> Self {
        let empty = || vec![0.0; images * visits];
        Self { visits, vb: empty(), mse: empty(), x0_mse: empty() }
    }

    fn take(&mut self, visit: usize, terms: &[SampleTerms]) {
        for (i, terms) in terms.iter().enumerate() {
            let at = i * self.visits + visit;
            (self.vb[at], self.mse[at], self.x0_mse[at]) = (terms.vb as f32, terms.mse as f32, terms.x0_mse as f32);
        }
    }
}

impl Job<'_> {
    /// The text to print; files are written.
    fn run(&self, dir: &RunDir) -> Result<String, Failure> {
        let args = self.args;
        let population = floor::population(&self.run.config.data, &self.run.diffusion);
        let mut arrays = args.arrays.as_ref().map(|_| Arrays::new(self.images, self.plan.visits().len()));
        let estimate = self.estimate(args.split, population.as_ref(), &mut |visit, terms| {
            if let Some(arrays) = &mut arrays {
                arrays.take(visit, terms);
            }
        })?;
        let memorisation = if args.memorisation { Some(self.memorisation()?) } else { None };

        let step = i64::from(self.run.step);
        if let Some(path) = &args.parquet {
            let columns = columns_of(&self.run.config, &self.run.dataset.name);
            write_rows(path, &columns, &rows_of(args.split, args.weights, step, &estimate)).map_err(CliError::from)?;
        }
        if let (Some(path), Some(arrays)) = (&args.arrays, &arrays) {
            self.write_arrays(path, arrays, dir)?;
        }
        let rates = args.rate_distortion.then(|| table(&rate_distortion(&estimate, &self.plan), self.run.diffusion.timesteps()));
        Ok(if args.json {
            self.json(dir, &estimate, rates.as_deref(), memorisation.as_deref())
        } else {
            self.text(dir, &estimate, rates.as_deref(), memorisation.as_deref())
        })
    }

    fn estimate(
        &self,
        split: Split,
        floor: Option<&MixtureOracle>,
        each: &mut (dyn FnMut(usize, &[SampleTerms]) + Send),
    ) -> Result<BoundEstimate, TrainError> {
        let how = Inspection {
            split,
            images: self.images,
            plan: &self.plan,
            weights: self.args.weights,
            device: self.device,
            floor,
            stop: self.stop,
        };
        // A bar on a terminal, nothing elsewhere.
        let style = ProgressStyle::with_template("{msg} {bar:40} {percent}%  {eta} left").expect("a fixed template is well formed");
        let bar = ProgressBar::no_length().with_style(style).with_message(split.to_string());
        let estimate = self.pool.install(|| {
            let mut progress = |done, total| {
                bar.set_length(total);
                bar.set_position(done);
            };
            self.run.evaluate(&how, &mut progress, each)
        });
        bar.finish_and_clear();
        estimate
    }

    fn text(&self, dir: &RunDir, e: &BoundEstimate, rates: Option<&[(u32, RatePoint)]>, memorisation: Option<&[Decile]>) -> String {
        let (args, total) = (self.args, self.run.diffusion.timesteps());
        let visited = self.plan.visits().len();
        let mut text = format!(
            "{}  {}\nstep {} of {}, {} weights; {}: {} of {} examples, {} timesteps, {} draw{}\n\n",
            dir.id(),
            dir.slug(),
            self.run.step,
            self.run.config.train.steps,
            args.weights,
            args.split,
            self.images,
            self.run.split(args.split).len(),
            if self.plan.is_complete() { format!("all {total}") } else { format!("{visited} of {total}") },
            self.plan.draws(),
            if self.plan.draws() == 1 { "" } else { "s" },
        );
        let mut t = Table::new(&["bits/dim", ">", ">± s.e."]);
        let mut row = |name: &str, value: f64, error: f64| t.row(vec![name.to_owned(), number(value), number(error)]);
        row("bound", e.bits_per_dim(), e.standard_error());
        row("  decoder L_0 (t = 1)", e.decoder(), e.per_example_decoder.standard_error());
        row("  KL L_1 … L_T-1 (t = 2 … T)", e.kl(), e.kl_error());
        row("  prior L_T", e.prior.mean, e.prior.standard_error());
        if let (Some(floor), Some((excess, error))) = (e.floor(), e.excess()) {
            row("floor: the exact denoiser", floor, f64::NAN);
            row("  excess, on the same draws", excess, error);
        }
        text += &t.render("  ");
        text += &format!("\n  eps-MSE over uniform t: {}\n", number(e.eps_mse()));
        if !self.plan.is_complete() {
            text += &format!("  of the bound's error, {} come of choosing timesteps ({})\n", number(e.choice_error()), self.choice_words());
        }
        if self.run.dataset.info.encoding == Encoding::Continuous {
            text += "  continuous data: bits are differential, under a Gaussian density\n";
        }
        if e.n_nonfinite() > 0 {
            text += &format!("  {} samples were not finite: there is no bound\n", e.n_nonfinite());
        }
        if let Some(rates) = rates {
            text += "\nRate and distortion: bits/dim sent before x_t, and the error of x̂_0(x_t) on a scale of 0 to 255\n";
            let mut t = Table::new(&[">T - t + 1", ">rate", ">RMSE"]);
            rates.iter().for_each(|(reverse, p)| t.row(vec![reverse.to_string(), number(p.rate), number(p.rmse_of_255())]));
            text += &t.render("  ");
        }
        if let Some(deciles) = memorisation {
            text += &memorisation_text(deciles, args.split);
        }
        for (what, path) in [("rows", &args.parquet), ("arrays", &args.arrays)] {
            if let Some(path) = path {
                text += &format!("\n{what}: {}", path.display());
            }
        }
        if text.ends_with('\n') { text } else { text + "\n" }
    }

    fn choice_words(&self) -> &'static str {
        if self.plan.draws() >= 2 {
            "from the scatter within strata"
        } else {
            "from pairs of neighbouring strata, on the large side; --draws 2 tells better"
        }
    }

    fn json(&self, dir: &RunDir, e: &BoundEstimate, rates: Option<&[(u32, RatePoint)]>, memorisation: Option<&[Decile]>) -> String {
        let mut all = serde_json::json!({
            "run_id": dir.id(),
            "slug": dir.slug(),
            "complete": self.plan.is_complete(),
            "evaluation": summary_of(self.args.split, self.args.weights, i64::from(self.run.step), e),
            "decoder_se": e.per_example_decoder.standard_error(),
            "kl_se": e.kl_error(),
            "prior_se": e.prior.standard_error(),
            "excess": e.excess().map(|x| x.0),
        });
        if let Some(rates) = rates {
            let rows: Vec<_> = rates
                .iter()
                .map(|(reverse, p)| serde_json::json!({"reverse_time": reverse, "t": p.t, "rate": p.rate, "rmse_of_255": p.rmse_of_255()}))
                .collect();
            all["rate_distortion"] = rows.into();
        }
        if let Some(deciles) = memorisation {
            all["memorisation"] = serde_json::json!(deciles);
        }
        format!("{all}\n")
    }

    /// `images`, `vb`, `mse`, `x0_mse` and `prior` of every example, and the `t` of the columns.
    fn write_arrays(&self, path: &Path, arrays: &Arrays, dir: &RunDir) -> Result<(), CliError> {
        let run = self.run;
        let shape = run.dataset.info.shape;
        let (n, visits) = (self.images, arrays.visits);
        let split = run.split(self.args.split);
        let images = run.examples(self.args.split, n);
        let prior: Vec<f64> = images.chunks_exact(shape.dims()).map(|x| run.diffusion.prior_bits_per_dim(x)).collect();
        let t: Vec<i64> = self.plan.visits().iter().map(|v| i64::from(v.t.get())).collect();
        let weight: Vec<f64> = self.plan.visits().iter().map(|v| v.weight).collect();
        let axes = [n, shape.height, shape.width, shape.channels];
        let levels = levels(split, &images);
        let note = |text: &str| vec![("meaning", Attribute::Text(text.to_owned()))];
        let of_terms = [n, visits];
        fn terms<'t>(name: &'t str, shape: &'t [usize], values: &'t [f32], text: &str) -> ArrayOut<'t> {
            ArrayOut { name, shape, values: ArrayValues::F32(values), attributes: vec![("meaning", Attribute::Text(text.to_owned()))] }
        }
        let about = vec![
            ("run", Attribute::Text(dir.id().to_owned())),
            ("step", Attribute::Integer(run.step)),
            ("split", Attribute::Text(self.args.split.to_string())),
            ("weights", Attribute::Text(self.args.weights.to_string())),
            ("draws", Attribute::Integer(self.plan.draws())),
        ];
        let out = [
            ArrayOut {
                name: "images",
                shape: &axes,
                values: levels.as_deref().map_or(ArrayValues::F32(&images), ArrayValues::U8),
                attributes: about,
            },
            terms("vb", &of_terms, &arrays.vb, "term of the bound in bits/dim, by example and t; t = 1 is the decoder, mean over draws"),
            terms("mse", &of_terms, &arrays.mse, "eps-MSE"),
            terms("x0_mse", &of_terms, &arrays.x0_mse, "squared error of the predicted x_0"),
            ArrayOut { name: "prior", shape: &[n], values: ArrayValues::F64(&prior), attributes: note("L_T in bits/dim") },
            ArrayOut { name: "t", shape: &[visits], values: ArrayValues::I64(&t), attributes: note("timestep of each column") },
            ArrayOut {
                name: "t_weight",
                shape: &[visits],
                values: ArrayValues::F64(&weight),
                attributes: note("timesteps that the column stands for: an example's bound is prior + the weighted sum of its vb"),
            },
        ];
        let name = path.file_name().ok_or_else(|| CliError::input(format!("{} names no file", path.display()), "--arrays FILE.h5"))?;
        let partial = path.with_file_name(format!(".{}.{}.partial", name.to_string_lossy(), std::process::id()));
        let written = write_arrays(&partial, &out).map_err(CliError::from).and_then(|()| {
            std::fs::rename(&partial, path)
                .map_err(|e| CliError::input(format!("cannot write {}: {e}", path.display()), "choose another --arrays"))
        });
        if written.is_err() {
            // The first failure is the one to report.
            let _ = std::fs::remove_file(&partial);
        }
        written
    }

    /// The squared error on training and on other examples, by tenth of T, beside that of a network that knows the training set
    /// by heart.
    fn memorisation(&self) -> Result<Vec<Decile>, Failure> {
        let run = self.run;
        let held_out = if self.args.split == Split::Train { Split::Test } else { self.args.split };
        let Some(oracle) = floor::memorising(&run.dataset, run.config.data.flip, &run.diffusion) else {
            return Err(
                CliError::input("bits have no squared error of the noise to compare", "--memorisation is for the Gaussian kernel").into()
            );
        };
        let timesteps = run.diffusion.timesteps();
        let decile = |visit: usize| self.plan.visits()[visit].t.index() * 10 / timesteps;
        let mut own = [const { Vec::new() }; 2];
        let mut memorised = [[0.0; 10]; 2];
        let mut weights = [0.0; 10];
        self.plan.visits().iter().enumerate().for_each(|(v, visit)| weights[decile(v)] += visit.weight);
        for (k, split) in [Split::Train, held_out].into_iter().enumerate() {
            let images = self.images.min(run.split(split).len());
            let mut sums = vec![[0.0; 10]; images];
            let estimate = Job { images, plan: self.plan.clone(), ..*self }.estimate(split, Some(&oracle), &mut |v, terms| {
                sums.iter_mut().zip(terms).for_each(|(sum, terms)| sum[decile(v)] += self.plan.visits()[v].weight * terms.mse);
            })?;
            for (v, floor) in estimate.floors.iter().enumerate() {
                memorised[k][decile(v)] += self.plan.visits()[v].weight * floor.mse.mean / weights[decile(v)];
            }
            own[k] = sums;
        }
        let of = |sums: &[[f64; 10]], d: usize| {
            let mut moments = Moments::default();
            sums.iter().for_each(|s| moments.push(s[d] / weights[d]));
            moments
        };
        // A tenth without a visit says nothing.
        let seen = (0..10).filter(|d| weights[*d] > 0.0);
        Ok(seen
            .map(|d| {
                let (train, other) = (of(&own[0], d), of(&own[1], d));
                Decile {
                    first: (d * timesteps).div_ceil(10) as u32 + 1,
                    last: ((d + 1) * timesteps).div_ceil(10) as u32,
                    train: train.mean,
                    train_memorised: memorised[0][d],
                    held_out: other.mean,
                    held_out_memorised: memorised[1][d],
                    gap: other.mean - train.mean,
                    gap_se: train.standard_error().hypot(other.standard_error()),
                }
            })
            .collect())
    }
}

/// The levels of the first examples, or of those spread over a training split, where they are levels.
fn levels(split: &Examples, images: &[f32]) -> Option<Vec<u8>> {
    let Encoding::Discrete { levels } = split.encoding() else { return None };
    let scale = (levels - 1) as f32 / 2.0;
    Some(images.iter().map(|x| ((x + 1.0) * scale).round() as u8).collect())
}

/// A tenth of T: eps-MSE.
#[derive(serde::Serialize)]
struct Decile {
    first: u32,
    last: u32,
    train: f64,
    train_memorised: f64,
    held_out: f64,
    held_out_memorised: f64,
    gap: f64,
    gap_se: f64,
}

impl Decile {
    /// The gap as a share of that of a network that has memorised.
    fn share(&self) -> f64 {
        self.gap / (self.held_out_memorised - self.train_memorised)
    }
}

fn memorisation_text(deciles: &[Decile], split: Split) -> String {
    let held_out = if split == Split::Train { Split::Test } else { split };
    let mut t = Table::new(&[">t", ">train", ">memorised", &format!(">{held_out}"), ">memorised", ">gap ± s.e.", ">share"]);
    for d in deciles {
        t.row(vec![
            format!("{}–{}", d.first, d.last),
            number(d.train),
            number(d.train_memorised),
            number(d.held_out),
            number(d.held_out_memorised),
            format!("{} ± {}", number(d.gap), number(d.gap_se)),
            if d.share().is_finite() { format!("{:.1} %", 100.0 * d.share()) } else { "–".to_owned() },
        ]);
    }
    format!(
        "\nMemorisation: eps-MSE of the network, and of the exact posterior mean over the training examples on the same draws\n{}  \
         \"memorised\" is the least error on train that there is, and what knowing train by heart gives on {held_out}, where it is\n  \
         no floor: a network that generalises lies below it. share: the gap between {held_out} and train in parts of that network's;\n  \
         0 % treats both alike, 100 % has memorised.\n",
        t.render("  ")
    )
}

/// A number with four digits behind the point, or few digits in all where it is small; a dash where there is none.
fn number(x: f64) -> String {
    if x.is_nan() {
        "–".to_owned()
    } else if x != 0.0 && x.abs() < 5e-4 {
        format!("{x:.1e}")
    } else {
        format!("{x:.4}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_of_timesteps_is_read_or_refused() {
        let read = |s: &str| s.parse::<Timesteps>();
        assert_eq!(read("all"), Ok(Timesteps::All));
        assert_eq!(read("strided:50"), Ok(Timesteps::Strided(50)));
        assert_eq!(read("dense-head"), Ok(Timesteps::DenseHead(None, STRATA)));
        assert_eq!(read("dense-head:40:10"), Ok(Timesteps::DenseHead(Some(40), 10)));
        for wrong in ["", "strided", "strided:0", "strided:+5", "dense-head:", "dense-head:1:2:3", "every"] {
            assert!(read(wrong).unwrap_err().contains("dense-head:H:K"), "{wrong}");
        }
        let plan = Timesteps::DenseHead(None, 50).plan(1000, 2);
        assert!(plan.visits()[..50].iter().enumerate().all(|(i, v)| v.t.index() == i && v.draws == 2) && plan.visits().len() > 120);
    }

    #[test]
    fn numbers_keep_what_is_small() {
        assert_eq!([3.231_668, -0.0021, 7.28e-6, 0.0, f64::NAN].map(number), ["3.2317", "-0.0021", "7.3e-6", "0.0000", "–"]);
    }
}
