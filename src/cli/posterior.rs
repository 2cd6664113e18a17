//! `posterior`: test examples that are hidden in part or seen through noise, drawn again under the learned model.

use super::mask::Mask;
use super::output::{Table, print, short};
use super::sample::pairs;
use super::trained::{Array, Opened, TrainedArgs, write_file, write_hdf5};
use super::{CliError, exit};
use crate::data::hdf5::ArrayValues;
use crate::data::{Encoding, picture};
use crate::diffusion::Condition;
use crate::diffusion::posterior::{Factor, from_observation};
use crate::diffusion::sampling::{Sampler, Walk};
use crate::named_enum;
use crate::record::Moments;
use crate::report::sheet::{Block, Row, Sheet, covered};
use crate::rng::{self, Purpose};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

named_enum! {
    /// How what is known enters.
    pub enum Method {
        /// Into every step as it is. [SohlDickstein15, §2.5]
        Sd15 = "sd15",
        /// At the noise of each step; of an observation through noise, at the one step that has its noise.
        Renoise = "renoise",
    }
}

#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("known").required(true).args(["inpaint", "denoise"])))]
pub struct PosteriorArgs {
    #[command(flatten)]
    trained: TrainedArgs,
    /// Hide part of each example: half-left, half-right, centre, checker, random:P, a picture whose white is hidden, or x or y of points.
    #[arg(long, value_name = "MASK")]
    inpaint: Option<Mask>,
    /// Show each example with Gaussian noise of this standard deviation (images lie in [-1, 1], bits are -1 and 1).
    #[arg(long, value_name = "SIGMA")]
    denoise: Option<f64>,
    /// sd15: the method of Sohl-Dickstein et al. 2015, what is known into every step as it is. renoise: at each step's noise; for
    /// --denoise, start at the step that has the observation's noise.
    #[arg(long, default_value = "sd15")]
    method: Method,
    /// Make each step of --inpaint so often, going back up in between; more bring the samples nearer to the true posterior.
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// Test examples.
    #[arg(long, default_value_t = 8)]
    count: usize,
    /// Samples of each [default: 8 images or 500 points].
    #[arg(long)]
    draws: Option<usize>,
    /// Truth, what is seen, samples: an example in each row.
    #[arg(long, value_name = "FILE.png", default_value = "posterior.png")]
    out: PathBuf,
    /// Truth, what is seen, and samples, as HDF5.
    #[arg(long, value_name = "FILE.h5")]
    arrays: Option<PathBuf>,
}

static GO: AtomicBool = AtomicBool::new(false);

/// Examples, what is seen of them, and samples of what they may be.
struct Seen {
    truth: Vec<f32>,
    observed: Vec<f32>,
    /// Of one example; all of it where it is seen through noise.
    hidden: Vec<bool>,
    samples: Vec<f32>,
    draws: usize,
}

pub fn posterior(args: &PosteriorArgs) -> Result<i32, CliError> {
    let trained = args.trained.open()?;
    let shape = trained.shape();
    let draws = args.draws.unwrap_or(if shape.is_image() { 8 } else { 500 });
    check(args, &trained, draws)?;
    let truth = trained.test(args.count);
    let network = trained.network()?;
    let mut seen = Seen { hidden: vec![true; shape.dims()], observed: truth.clone(), samples: Vec::new(), truth, draws };
    let count = seen.truth.len() / shape.dims() * draws;
    let mut said = format!("{}\n", trained.describe());
    if let Some(mask) = &args.inpaint {
        seen.hidden = mask.hidden(shape, trained.seed)?;
        let (observed, hidden) = (&seen.observed, &seen.hidden);
        let factor = match args.method {
            Method::Sd15 => Factor::Clamp { observed, hidden },
            Method::Renoise => Factor::Renoise { observed, hidden },
        };
        let condition = Condition { factor, draws, rounds: args.rounds };
        said += &format!(
            "inpainting, {} of {} values hidden, method {}, {} round(s)\n",
            hidden.iter().filter(|h| **h).count(),
            shape.dims(),
            args.method,
            args.rounds
        );
        let samples = walk(&trained, Sampler::Posterior(&condition)).draw(&network, count)?.x;
        seen.samples = samples;
    }
    if let Some(deviation) = args.denoise {
        let stream = rng::stream(trained.seed, Purpose::EvaluationNoise, 0);
        for (i, x) in seen.observed.chunks_exact_mut(shape.dims()).enumerate() {
            let mut noise = vec![0.0; shape.dims()];
            stream.normals(i as u32, &mut noise);
            x.iter_mut().zip(noise).for_each(|(x, z)| *x += (deviation * f64::from(z)) as f32);
        }
        let samples = match args.method {
            Method::Sd15 => {
                let condition = Condition { factor: Factor::Noisy { observed: &seen.observed, deviation }, draws, rounds: 1 };
                said += &format!("denoising, sigma = {deviation}, method sd15\n");
                walk(&trained, Sampler::Posterior(&condition)).draw(&network, count)?.x
            }
            Method::Renoise => {
                let Some((from, x)) = from_observation(&trained.steps, &seen.observed, deviation, draws, trained.seed) else {
                    return Err(CliError::input(
                        format!("an observation with sigma = {deviation} is noisier than x_T of this schedule"),
                        "a smaller --denoise, or --method sd15",
                    ));
                };
                said += &format!("denoising, sigma = {deviation}, method renoise: from t = {} down\n", trained.steps.timesteps[from]);
                walk(&trained, Sampler::Ancestral).descend(&network, x, from)?.x
            }
        };
        seen.samples = samples;
    }
    said += &errors(&trained, &seen, args.denoise.is_some());
    write_file(&args.out, &drawing(&trained, &seen, args)?)?;
    said += &format!("  {}: an example in each row, {draws} samples of it\n", args.out.display());
    if let Some(path) = &args.arrays {
        write_arrays(path, &trained, &seen)?;
        said += &format!("  {}: truth, observed, hidden, samples\n", path.display());
    }
    print(&said);
    Ok(exit::DONE)
}

fn walk<'a>(trained: &'a Opened, sampler: Sampler<'a>) -> Walk<'a> {
    Walk { steps: &trained.steps, sampler, seed: trained.seed, frames: &[], stop: &GO }
}

/// Refuses what cannot be.
fn check(args: &PosteriorArgs, trained: &Opened, draws: usize) -> Result<(), CliError> {
    if args.count == 0 || draws == 0 || args.rounds == 0 {
        return Err(CliError::input("there is nothing to draw", "--count, --draws and --rounds are at least 1"));
    }
    match args.denoise {
        Some(sigma) if !(sigma > 0.0 && sigma.is_finite()) => {
            Err(CliError::input(format!("--denoise is {sigma}"), "a standard deviation above 0"))
        }
        Some(_) if args.rounds > 1 => Err(CliError::input("--rounds is an option of --inpaint", "leave it out")),
        Some(_) if args.method == Method::Renoise && trained.steps.process.gaussian().is_none() => Err(CliError::input(
            "bits seen through Gaussian noise are no x_t of the Binomial kernel, whose noise flips bits",
            "--method sd15",
        )),
        _ => Ok(()),
    }
}

/// What is said of the j-th value of an example.
type Says<'a> = &'a dyn Fn(usize) -> f64;

/// The errors of what was hidden, over examples: of one sample, of the mean of all, and of what one would say without the model.
fn errors(trained: &Opened, seen: &Seen, denoised: bool) -> String {
    let (dims, train) = (trained.shape().dims(), &trained.run.dataset.train);
    let mut mean_of_data = vec![0.0f64; dims];
    let mut x = vec![0.0; dims];
    for i in 0..train.len() {
        train.scaled(i, &mut x);
        mean_of_data.iter_mut().zip(&x).for_each(|(m, x)| *m += f64::from(*x) / train.len() as f64);
    }
    let places: Vec<usize> = (0..dims).filter(|j| seen.hidden[*j]).collect();
    let bits = trained.run.dataset.info.encoding == Encoding::Discrete { levels: 2 };
    // The squared difference, and whether the bit is another one.
    let squared =
        |truth: &[f32], says: Says<'_>| places.iter().map(|&j| (f64::from(truth[j]) - says(j)).powi(2)).sum::<f64>() / places.len() as f64;
    let flipped = |truth: &[f32], says: Says<'_>| {
        places.iter().filter(|&&j| (truth[j] > 0.0) != (says(j) > 0.0)).count() as f64 / places.len() as f64
    };
    let mut rows: Vec<(String, Moments, Moments)> = vec![
        ("one sample".to_owned(), Moments::default(), Moments::default()),
        (format!("mean of {} samples", seen.draws), Moments::default(), Moments::default()),
        ("mean of the training data".to_owned(), Moments::default(), Moments::default()),
    ];
    if denoised {
        rows.push(("the observation".to_owned(), Moments::default(), Moments::default()));
    }
    for (i, truth) in seen.truth.chunks_exact(dims).enumerate() {
        let samples = &seen.samples[i * seen.draws * dims..][..seen.draws * dims];
        let mean = |j: usize| samples.iter().skip(j).step_by(dims).map(|x| f64::from(*x)).sum::<f64>() / seen.draws as f64;
        let over_draws = |error: &dyn Fn(&[f32], Says<'_>) -> f64| {
            samples.chunks_exact(dims).map(|s| error(truth, &|j| s[j].into())).sum::<f64>() / seen.draws as f64
        };
        let observed = &seen.observed[i * dims..][..dims];
        let sayings: [Says<'_>; 3] = [&mean, &|j| mean_of_data[j], &|j| observed[j].into()];
        rows[0].1.push(over_draws(&squared));
        rows[0].2.push(over_draws(&flipped));
        for (row, says) in rows[1..].iter_mut().zip(sayings) {
            row.1.push(squared(truth, says));
            row.2.push(flipped(truth, says));
        }
    }
    let with_error = |m: &Moments| {
        if m.n > 1 { format!("{} ± {}", short(m.mean), short(m.standard_error())) } else { short(m.mean) }
    };
    let name = if denoised { ">mean squared error" } else { ">mean squared error of what is hidden" };
    let mut table = Table::new(&["", name, ">wrong bits"][..if bits { 3 } else { 2 }]);
    for (label, squared, flipped) in &rows {
        let mut cells = vec![label.clone(), with_error(squared)];
        if bits {
            cells.push(with_error(flipped));
        }
        table.row(cells);
    }
    format!("against the truth of {} test examples (± standard error over examples):\n{}", rows[0].1.n, table.render("  "))
}

fn drawing(trained: &Opened, seen: &Seen, args: &PosteriorArgs) -> Result<Vec<u8>, CliError> {
    let (shape, dims) = (trained.shape(), trained.shape().dims());
    let examples = seen.truth.len() / dims;
    let one = |x: &[f32]| picture::contact_sheet([x], shape, 1);
    let what = if args.denoise.is_some() { "with noise" } else { "seen" };
    if !shape.is_image() {
        // A plot for each point: the data behind, samples before.
        let behind = pairs(&trained.test(2000));
        let label = |i: usize| {
            let (truth, observed) = (&seen.truth[i * dims..], &seen.observed[i * dims..]);
            match (args.denoise, seen.hidden[0]) {
                (Some(_), _) => format!("seen {:.2}, {:.2}", observed[0], observed[1]),
                (None, true) => format!("y = {:.2}, x was {:.2}", truth[1], truth[0]),
                (None, false) => format!("x = {:.2}, y was {:.2}", truth[0], truth[1]),
            }
        };
        let plot = |i: usize| picture::scatter(&behind, &pairs(&seen.samples[i * seen.draws * dims..][..seen.draws * dims]));
        let blocks = (0..examples).step_by(4).map(|first| {
            let range = first..(first + 4).min(examples);
            let row = Row { label: String::new(), pictures: range.clone().map(plot).collect(), apart: false };
            Block { title: String::new(), head: range.map(|i| (label(i), 1)).collect(), rows: vec![row] }
        });
        return Ok(Sheet { blocks: blocks.collect() }.png()?);
    }
    let rows = (0..examples).map(|i| {
        let of = |x: &[f32]| one(&x[i * dims..(i + 1) * dims]);
        let observed = covered(&of(&seen.observed), (shape.width, shape.height), |x, y| {
            args.inpaint.is_some() && seen.hidden[(y * shape.width + x) * shape.channels]
        });
        let samples = seen.samples[i * seen.draws * dims..][..seen.draws * dims].chunks_exact(dims).take(SHOWN).map(one);
        Row { label: String::new(), pictures: [of(&seen.truth), observed].into_iter().chain(samples).collect(), apart: false }
    });
    let head = vec![("truth".to_owned(), 1), (what.to_owned(), 1), ("samples of the posterior".to_owned(), seen.draws.min(SHOWN))];
    Ok(Sheet { blocks: vec![Block { title: String::new(), head, rows: rows.collect() }] }.png()?)
}

/// Samples of an image that are drawn side by side.
const SHOWN: usize = 16;

fn write_arrays(path: &std::path::Path, trained: &Opened, seen: &Seen) -> Result<(), CliError> {
    let shape = trained.shape();
    let of = |lead: &[usize]| [lead, &[shape.height, shape.width, shape.channels]].concat();
    let n = seen.truth.len() / shape.dims();
    let hidden: Vec<u8> = seen.hidden.iter().map(|h| u8::from(*h)).collect();
    let arrays = [
        Array { name: "samples", shape: of(&[n, seen.draws]), values: ArrayValues::F32(&seen.samples) },
        Array { name: "truth", shape: of(&[n]), values: ArrayValues::F32(&seen.truth) },
        Array { name: "observed", shape: of(&[n]), values: ArrayValues::F32(&seen.observed) },
        Array { name: "hidden", shape: of(&[]), values: ArrayValues::U8(&hidden) },
    ];
    write_hdf5(path, &arrays, &trained.attributes())
}
