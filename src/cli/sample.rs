//! `sample`: what a trained run draws, and how.

use super::output::{print, short};
use super::trained::{Array, Opened, TrainedArgs, write_file, write_hdf5};
use super::{CliError, exit};
use crate::data::hdf5::ArrayValues;
use crate::data::picture;
use crate::diffusion::sampling::{Ddim, DdimEpsilon, Drawn, Frame, Sampler, Walk, slerp};
use crate::named_enum;
use crate::record::Moments;
use crate::report::sheet::{Block, Row, Sheet};
use crate::rng::{self, Purpose};
use crate::train::Network;
use crate::units::Timestep;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

named_enum! {
    /// How samples are drawn.
    pub enum SamplerKind {
        Ancestral = "ancestral",
        Ddim = "ddim",
    }
}

#[derive(clap::Args)]
pub struct SampleArgs {
    #[command(flatten)]
    trained: TrainedArgs,
    /// Samples [default: 64 images or 2000 points].
    #[arg(long)]
    count: Option<usize>,
    /// ancestral (every step with its noise), or ddim.
    #[arg(long, default_value = "ancestral")]
    sampler: SamplerKind,
    /// Share of the ancestral noise in ddim, 0 (none, the default) to 1.
    #[arg(long)]
    eta: Option<f64>,
    /// The epsilon that ddim goes on with where x_0 was clipped: of the clipped x_0 (as improved DDPM), or raw (as diffusers).
    #[arg(long, default_value = "clipped")]
    epsilon: DdimEpsilon,
    /// A picture of the samples; of --invert, test examples, their latents and what comes back. Default, where nothing else is asked for: samples.png.
    #[arg(long, value_name = "FILE.png")]
    grid: Option<PathBuf>,
    /// Test examples on their way to noise, and samples on their way from it with the x_0 predicted at each t; t is written above.
    #[arg(long, value_name = "FILE.png")]
    strip: Option<PathBuf>,
    /// Timesteps in the strip.
    #[arg(long, default_value_t = 11)]
    frames: usize,
    /// Between pairs of latents, along the great circle, decoded by ddim without noise.
    #[arg(long, value_name = "FILE.png")]
    interpolate: Option<PathBuf>,
    /// Encode test examples by ddim run upwards, decode them again, and print the error of what comes back.
    #[arg(long)]
    invert: bool,
    /// Samples (in [-1, 1]; points as they are), and what else was made, as HDF5.
    #[arg(long, value_name = "FILE.h5")]
    arrays: Option<PathBuf>,
    /// Into the arrays, also x_t and the predicted x_0 of all samples at the strip's timesteps.
    #[arg(long, requires = "arrays")]
    trajectory: bool,
}

static GO: AtomicBool = AtomicBool::new(false);

/// Samples in a strip of images, pairs and steps between them.
const STRIP_ROWS: usize = 3;
const PAIRS: usize = 5;
const BETWEEN: usize = 11;

pub fn sample(args: &SampleArgs) -> Result<i32, CliError> {
    let trained = args.trained.open()?;
    let ddim = ddim(args, &trained)?;
    let network = trained.network()?;
    let shape = trained.shape();
    let count = args.count.unwrap_or(if shape.is_image() { 64 } else { 2000 });
    if count == 0 || args.frames == 0 {
        return Err(CliError::input("there is nothing to draw", "--count and --frames are at least 1"));
    }
    let sampler = match args.sampler {
        SamplerKind::Ancestral => Sampler::Ancestral,
        SamplerKind::Ddim => Sampler::Ddim(ddim),
    };
    let with_frames = args.strip.is_some() || args.trajectory;
    let frames = if with_frames { trained.steps.spread(args.frames) } else { Vec::new() };
    let walk = Walk { steps: &trained.steps, sampler, seed: trained.seed, frames: &frames, stop: &GO };
    let mut said = format!("{}\n", trained.describe());
    let mut arrays = Kept::default();

    // Samples, unless only a map of given latents was asked for.
    let other = args.interpolate.is_some() || args.invert;
    let grid = args.grid.clone().or_else(|| (!other && args.strip.is_none() && args.arrays.is_none()).then(|| "samples.png".into()));
    if !args.invert && grid.is_some() || with_frames || (args.arrays.is_some() && !other) {
        let drawn = walk.draw(&network, count)?;
        said += &format!("{count} samples, {}\n", how(args));
        if let Some(path) = grid.as_ref().filter(|_| !args.invert) {
            write_file(path, &trained.run.picture(&drawn.x)?)?;
            said += &format!("  {}: the samples\n", path.display());
        }
        if let Some(path) = &args.strip {
            write_file(path, &strip(&trained, &drawn)?.png()?)?;
            said += &format!("  {}: forward and reverse, with the predicted x_0; t above each column\n", path.display());
        }
        arrays.samples(&trained, drawn, args.trajectory);
    }
    if let Some(path) = &args.interpolate {
        let decoded = interpolate(&trained, &Walk { sampler: Sampler::Ddim(ddim), frames: &[], ..walk }, &network)?;
        write_file(path, &interpolation_picture(&trained, &decoded)?)?;
        said +=
            &format!("  {}: {PAIRS} pairs of latents, {BETWEEN} points on the way from one to the other, ddim, eta = 0\n", path.display());
        arrays.add("interpolated", &[PAIRS, BETWEEN], &trained, decoded);
    }
    if args.invert {
        let test = trained.test(count);
        let walk = Walk { sampler: Sampler::Ddim(ddim), frames: &[], ..walk };
        let latents = walk.encode(&network, &ddim, &test)?;
        let back = walk.decode(&network, latents.clone())?.x;
        said += &inversion(&trained, &test, &latents, &back);
        if let Some(path) = &grid {
            write_file(path, &inversion_picture(&trained, [&test, &latents, &back])?)?;
            said += &format!("  {}: test examples, their latents, what comes back\n", path.display());
        }
        let n = test.len() / shape.dims();
        arrays.add("test", &[n], &trained, test);
        arrays.add("latents", &[n], &trained, latents);
        arrays.add("reconstructed", &[n], &trained, back);
    }
    if let Some(path) = &args.arrays {
        arrays.write(path, &trained)?;
        said += &format!("  {}: {}\n", path.display(), arrays.0.iter().map(|a| a.0.as_str()).collect::<Vec<_>>().join(", "));
    }
    print(&said);
    Ok(exit::DONE)
}

/// What DDIM is asked for; refuses what cannot be.
fn ddim(args: &SampleArgs, trained: &Opened) -> Result<Ddim, CliError> {
    let eta = args.eta.unwrap_or(0.0);
    let is_ddim = args.sampler == SamplerKind::Ddim;
    let maps = args.interpolate.is_some() || args.invert;
    if !(0.0..=1.0).contains(&eta) {
        return Err(CliError::input(format!("--eta is {eta}"), "0 (no noise) to 1 (the ancestral sampler's)"));
    }
    if trained.steps.process.gaussian().is_none() && (is_ddim || maps) {
        return Err(CliError::input(
            "ddim moves x along a line, and the values of the Binomial kernel are bits",
            "--sampler ancestral, without --interpolate and --invert",
        ));
    }
    if args.eta.is_some() && !is_ddim {
        return Err(CliError::input("--eta is an option of ddim", "add --sampler ddim"));
    }
    if maps && eta > 0.0 {
        return Err(CliError::input(
            format!("--interpolate and --invert need a map without noise, and --eta is {eta}"),
            "leave --eta out, or draw samples by themselves",
        ));
    }
    Ok(Ddim { epsilon: args.epsilon, ..Ddim::new(eta) })
}

fn how(args: &SampleArgs) -> String {
    match args.sampler {
        SamplerKind::Ancestral => "ancestral".to_owned(),
        SamplerKind::Ddim => format!("ddim, eta = {}", args.eta.unwrap_or(0.0)),
    }
}

/// Two blocks: test examples upwards, samples downwards.
fn strip(trained: &Opened, drawn: &Drawn) -> Result<Sheet, CliError> {
    let (shape, dims) = (trained.shape(), trained.shape().dims());
    let label = |t: u32| (format!("t = {t}"), 1);
    let rows = if shape.is_image() { STRIP_ROWS.min(drawn.x.len() / dims) } else { 1 };
    // A row is one image, or all points.
    let of = |x: &[f32], row: usize| if shape.is_image() { x[row * dims..(row + 1) * dims].to_vec() } else { x.to_vec() };
    let draw = |x: &[f32]| {
        if shape.is_image() { picture::contact_sheet([x], shape, 1) } else { picture::scatter(&pairs(&trained.test(1000)), &pairs(x)) }
    };
    let upwards: Vec<u32> = drawn.frames.iter().rev().map(|f| f.t).collect();
    let test = trained.test(if shape.is_image() { rows } else { drawn.x.len() / dims });
    let forward = (0..rows)
        .map(|row| Row {
            label: "xₜ".to_owned(),
            pictures: upwards.iter().map(|t| draw(&of(&noised(trained, &test, *t), row))).collect(),
            apart: false,
        })
        .collect();
    let reverse = (0..rows).flat_map(|row| {
        let pictures = |part: &dyn Fn(&Frame) -> &Vec<f32>| drawn.frames.iter().map(|f| draw(&of(part(f), row))).collect();
        [
            Row { label: "xₜ".to_owned(), pictures: pictures(&|f| &f.x_t), apart: true },
            Row { label: "predicted x₀".to_owned(), pictures: pictures(&|f| &f.x0), apart: false },
        ]
    });
    Ok(Sheet {
        blocks: vec![
            Block {
                title: "Forward: test data turned into noise".to_owned(),
                head: upwards.iter().map(|t| label(*t)).collect(),
                rows: forward,
            },
            Block {
                title: "Reverse: noise turned into samples".to_owned(),
                head: drawn.frames.iter().map(|f| label(f.t)).collect(),
                rows: reverse.collect(),
            },
        ],
    })
}

/// x_t of examples; one noise for all t of an example.
fn noised(trained: &Opened, x_0: &[f32], t: u32) -> Vec<f32> {
    let dims = trained.shape().dims();
    let Some(t) = Timestep::new(t) else { return x_0.to_vec() };
    let stream = rng::stream(trained.seed, Purpose::EvaluationNoise, 0);
    let mut x_t = vec![0.0; x_0.len()];
    for (i, (x_0, x_t)) in x_0.chunks_exact(dims).zip(x_t.chunks_exact_mut(dims)).enumerate() {
        let mut noise = vec![0.0; dims];
        trained.run.diffusion.draw_noise(&stream, i as u32, &mut noise);
        trained.run.diffusion.q_sample(t, x_0, &noise, x_t);
    }
    x_t
}

pub fn pairs(x: &[f32]) -> Vec<[f32; 2]> {
    x.chunks_exact(2).map(|p| [p[0], p[1]]).collect()
}

/// Samples on the way from latent 2k to latent 2k + 1, pair by pair.
fn interpolate(trained: &Opened, walk: &Walk<'_>, network: &Network<'_>) -> Result<Vec<f32>, CliError> {
    let dims = trained.shape().dims();
    let latents = walk.latents(2 * PAIRS);
    let ends = |pair: usize| (&latents[2 * pair * dims..][..dims], &latents[(2 * pair + 1) * dims..][..dims]);
    let between = (0..PAIRS * BETWEEN).flat_map(|i| {
        let (a, b) = ends(i / BETWEEN);
        slerp(a, b, (i % BETWEEN) as f64 / (BETWEEN - 1) as f64)
    });
    Ok(walk.decode(network, between.collect())?.x)
}

fn interpolation_picture(trained: &Opened, decoded: &[f32]) -> Result<Vec<u8>, CliError> {
    let shape = trained.shape();
    if !shape.is_image() {
        return Ok(picture::png(&picture::scatter(&pairs(&trained.test(2000)), &pairs(decoded)))?);
    }
    let row = |pair: &[f32]| Row {
        label: String::new(),
        pictures: pair.chunks_exact(shape.dims()).map(|x| picture::contact_sheet([x], shape, 1)).collect(),
        apart: false,
    };
    let head = (0..BETWEEN).map(|i| (format!("{:.1}", i as f64 / (BETWEEN - 1) as f64), 1)).collect();
    let rows = decoded.chunks_exact(BETWEEN * shape.dims()).map(row).collect();
    Ok(Sheet { blocks: vec![Block { title: "From one latent (0) to another (1)".to_owned(), head, rows }] }.png()?)
}

/// How far what comes back is from what went in.
fn inversion(trained: &Opened, test: &[f32], latents: &[f32], back: &[f32]) -> String {
    let (mut error, mut size) = (Moments::default(), Moments::default());
    for (x, y) in test.chunks_exact(trained.shape().dims()).zip(back.chunks_exact(trained.shape().dims())) {
        error.push(x.iter().zip(y).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / x.len() as f64);
    }
    latents.iter().for_each(|z| size.push((*z).into()));
    format!(
        "{} test examples encoded and decoded by ddim, eta = 0: mean squared error {} ± {} (root {}); latents have mean {} and variance {}\n",
        error.n,
        short(error.mean),
        short(error.standard_error()),
        short(error.mean.sqrt()),
        short(size.mean),
        short(size.variance())
    )
}

fn inversion_picture(trained: &Opened, [test, latents, back]: [&[f32]; 3]) -> Result<Vec<u8>, CliError> {
    let shape = trained.shape();
    if !shape.is_image() {
        let plots = [test, latents, back].map(|x| picture::scatter(&pairs(test), &pairs(x)));
        return Ok(picture::png(&picture::tile(&plots, 3))?);
    }
    let row = |label: &str, x: &[f32]| Row {
        label: label.to_owned(),
        pictures: x.chunks_exact(shape.dims()).take(12).map(|x| picture::contact_sheet([x], shape, 1)).collect(),
        apart: false,
    };
    let rows = vec![row("test", test), row("latent", latents), row("decoded", back)];
    Ok(Sheet { blocks: vec![Block { title: String::new(), head: Vec::new(), rows }] }.png()?)
}

/// Arrays on their way to a file: name, shape, values.
#[derive(Default)]
struct Kept(Vec<(String, Vec<usize>, Vec<f32>)>);

impl Kept {
    fn add(&mut self, name: &str, lead: &[usize], trained: &Opened, values: Vec<f32>) {
        let shape = trained.shape();
        self.0.push((name.to_owned(), [lead, &[shape.height, shape.width, shape.channels]].concat(), values));
    }

    fn samples(&mut self, trained: &Opened, drawn: Drawn, trajectory: bool) {
        let count = drawn.x.len() / trained.shape().dims();
        self.add("samples", &[count], trained, drawn.x);
        if trajectory {
            let lead = [drawn.frames.len(), count];
            self.0.push(("t".to_owned(), vec![drawn.frames.len()], drawn.frames.iter().map(|f| f.t as f32).collect()));
            let all = |part: &dyn Fn(&Frame) -> &Vec<f32>| drawn.frames.iter().flat_map(|f| part(f).clone()).collect();
            self.add("x_t", &lead, trained, all(&|f| &f.x_t));
            self.add("predicted_x0", &lead, trained, all(&|f| &f.x0));
        }
    }

    fn write(&self, path: &std::path::Path, trained: &Opened) -> Result<(), CliError> {
        let arrays: Vec<Array<'_>> =
            self.0.iter().map(|(name, shape, values)| Array { name, shape: shape.clone(), values: ArrayValues::F32(values) }).collect();
        write_hdf5(path, &arrays, &trained.attributes())
    }
}
