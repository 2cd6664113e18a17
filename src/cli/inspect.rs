//! `schedule` and `forward`: the forward process, in numbers and in a picture.

use super::output::{Table, print, short};
use super::{CliError, exit};
use crate::data::{self, DataSpec, Dataset, Encoding, picture};
use crate::diffusion::{
    DecoderCdf, Diffusion, DiffusionSpec, FirstLogVariance, Kernel, NoiseSchedule, Prediction, ScheduleKind, ScheduleSpec, VarianceType,
};
use crate::named::NamedEnum;
use crate::rng::{self, Purpose};
use crate::units::Timestep;
use std::path::PathBuf;

/// Points of a 2-D set in each plot.
const POINTS: usize = 1500;

#[derive(clap::Args)]
pub struct ScheduleArgs {
    #[arg(help = format!("One of {}.", ScheduleKind::names().join(", ")))]
    kind: String,
    #[command(flatten)]
    noise: NoiseArgs,
    /// Comma-separated, at full precision.
    #[arg(long)]
    csv: bool,
}

/// What a schedule is made of, its kind apart.
#[derive(clap::Args)]
struct NoiseArgs {
    /// T. [default: 1000; as many as --betas, where those are given]
    #[arg(long)]
    timesteps: Option<u32>,
    /// -log SNR at t = 1 of logsnr_linear.
    #[arg(long, default_value_t = ScheduleSpec::GAMMA.0, allow_negative_numbers = true)]
    gamma_min: f64,
    /// -log SNR at t = T of logsnr_linear.
    #[arg(long, default_value_t = ScheduleSpec::GAMMA.1, allow_negative_numbers = true)]
    gamma_max: f64,
    /// The betas of explicit.
    #[arg(long, value_delimiter = ',')]
    betas: Vec<f64>,
    /// Shift and scale sqrt(alpha_bar) so that alpha_bar is 0 at T.
    #[arg(long)]
    zero_terminal_snr: bool,
}

impl NoiseArgs {
    fn timesteps(&self) -> u32 {
        self.timesteps.unwrap_or(if self.betas.is_empty() { 1000 } else { self.betas.len() as u32 })
    }

    fn of(&self, kind: ScheduleKind) -> ScheduleSpec {
        ScheduleSpec {
            kind,
            timesteps: self.timesteps(),
            gamma: (self.gamma_min, self.gamma_max),
            betas: if kind == ScheduleKind::Explicit { self.betas.clone() } else { Vec::new() },
            zero_terminal_snr: self.zero_terminal_snr,
        }
    }
}

#[derive(clap::Args)]
pub struct ForwardArgs {
    /// A built-in data set (`ddpm-lab data list`) or an HDF5 file.
    data: String,
    /// Schedules to compare, one row each and image.
    #[arg(long, value_delimiter = ',', default_value = "linear,cosine")]
    schedule: Vec<String>,
    #[command(flatten)]
    noise: NoiseArgs,
    /// Timesteps to show; 0 is the image itself. Default: nine, evenly spaced.
    #[arg(long, value_delimiter = ',')]
    at: Vec<u32>,
    /// What a step does: adds Gaussian noise, or redraws bits (`binomial`, for data of two levels).
    #[arg(long, default_value = "gaussian")]
    kernel: Kernel,
    /// The probability that a redrawn bit is 1.
    #[arg(long, default_value_t = 0.5)]
    pi: f64,
    /// Images to show.
    #[arg(long, default_value_t = 2)]
    images: usize,
    /// Where the picture goes.
    #[arg(long, default_value = "forward.png")]
    out: PathBuf,
}

/// A schedule by name.
///
/// # Errors
/// If no schedule has that name.
fn schedule_kind(name: &str) -> Result<ScheduleKind, CliError> {
    ScheduleKind::from_name(name)
        .ok_or_else(|| CliError::input(format!("`{name}` is not a schedule"), format!("one of: {}", ScheduleKind::names().join(", "))))
}

pub fn schedule(args: &ScheduleArgs) -> Result<i32, CliError> {
    let s = NoiseSchedule::of(&args.noise.of(schedule_kind(&args.kind)?))?;
    let head = ["t", "beta", "alpha_bar", "log_snr", "posterior_variance", "posterior_x0_coef", "posterior_xt_coef"];
    let row = |i: usize| {
        [
            s.betas[i],
            s.alpha_bars[i],
            s.snr(Timestep::from_index(i)).ln(),
            s.posterior_variances[i],
            s.posterior_x0_coefs[i],
            s.posterior_xt_coefs[i],
        ]
    };
    if args.csv {
        let mut text = head.join(",") + "\n";
        for i in 0..s.timesteps() {
            let cells: Vec<String> = row(i).iter().map(|x| format!("{x:e}")).collect();
            text += &format!("{},{}\n", i + 1, cells.join(","));
        }
        print(&text);
    } else {
        let mut table = Table::new(&[">t", ">beta", ">alpha_bar", ">log_snr", ">posterior_var", ">coef_x0", ">coef_xt"]);
        for i in 0..s.timesteps() {
            table.row(std::iter::once((i + 1).to_string()).chain(row(i).iter().map(|x| short(*x))).collect());
        }
        print(&table.render(""));
    }
    Ok(exit::DONE)
}

/// The specification of a data set named on the command line: a built-in name, or a file.
pub fn data_spec(name: &str) -> DataSpec {
    let is_file = !data::builtins().iter().any(|b| b.name == name);
    DataSpec {
        name: if is_file { "file".to_owned() } else { name.to_owned() },
        path: is_file.then(|| PathBuf::from(name)),
        dataset: None,
        layout: data::AxisOrder::Auto,
        flip: false,
        fingerprint: String::new(),
    }
}

pub fn forward(args: &ForwardArgs) -> Result<i32, CliError> {
    let dataset = data::load(&data_spec(&args.data))?;
    let shape = dataset.info.shape;
    if args.kernel == Kernel::Binomial && (dataset.info.encoding != Encoding::Discrete { levels: 2 } || !(0.0 < args.pi && args.pi < 1.0)) {
        return Err(CliError::input(
            format!("the Binomial kernel redraws bits, and `{}` does not consist of bits (or --pi is no probability)", args.data),
            "data of two levels, e.g. heartbeat or digits_binary, and --pi between 0 and 1",
        ));
    }
    let timesteps = args.noise.timesteps();
    let at = if args.at.is_empty() { (0..9).map(|i| i * timesteps / 8).collect() } else { args.at.clone() };
    if let Some(t) = at.iter().find(|t| **t > timesteps) {
        return Err(CliError::input(format!("t = {t} lies beyond T = {timesteps}"), "every --at lies in 0..=T"));
    }
    // A row is an image under a schedule; of points, a row is many of them.
    let (rows, each) = if shape.is_image() { (args.images.clamp(1, dataset.test.len()), 1) } else { (1, POINTS.min(dataset.test.len())) };
    let dims = shape.dims();
    let mut strip: Vec<Vec<f32>> = Vec::new();
    for name in &args.schedule {
        let noise = args.noise.of(schedule_kind(name)?);
        let spec = DiffusionSpec {
            kernel: args.kernel,
            binomial_pi: args.pi,
            schedule: noise.kind,
            timesteps: noise.timesteps,
            gamma_min: noise.gamma.0,
            gamma_max: noise.gamma.1,
            betas: noise.betas,
            zero_terminal_snr: noise.zero_terminal_snr,
            prediction: Prediction::X0,
            variance: VarianceType::FixedSmall,
            first_log_variance: FirstLogVariance::Copy,
            decoder_cdf: DecoderCdf::Tanh,
            clip_x0: false,
        };
        let diffusion = Diffusion::new(&spec, shape, dataset.info.encoding)?;
        for row in 0..rows {
            for t in &at {
                let mut tile = vec![0.0; each * dims];
                for (i, x) in tile.chunks_exact_mut(dims).enumerate() {
                    noised(&diffusion, &dataset, row * each + i, *t, x);
                }
                strip.push(tile);
            }
        }
    }
    let picture = if shape.is_image() {
        picture::contact_sheet(strip.iter().map(Vec::as_slice), shape, at.len())
    } else {
        let plots: Vec<_> =
            strip.iter().map(|tile| picture::scatter(&tile.chunks_exact(2).map(|p| [p[0], p[1]]).collect::<Vec<_>>(), &[])).collect();
        picture::tile(&plots, at.len())
    };
    let png = picture::png(&picture)?;
    std::fs::write(&args.out, png)
        .map_err(|e| CliError::input(format!("cannot write {}: {e}", args.out.display()), "choose another --out"))?;
    let columns: Vec<String> = at.iter().map(|t| format!("t = {t}")).collect();
    print(&format!("{}: {} row(s) for each of {}; columns {}\n", args.out.display(), rows, args.schedule.join(", "), columns.join(", ")));
    Ok(exit::DONE)
}

/// x_t of a test example, with the noise that evaluations use for it at t = 0 in every schedule.
fn noised(diffusion: &Diffusion, dataset: &Dataset, example: usize, t: u32, x: &mut [f32]) {
    let mut noise = vec![0.0; x.len()];
    diffusion.draw_noise(&rng::stream(rng::EVALUATION_SEED, Purpose::EvaluationNoise, 0), example as u32, &mut noise);
    dataset.test.scaled(example, x);
    if let Some(t) = Timestep::new(t) {
        let x_0 = x.to_vec();
        diffusion.q_sample(t, &x_0, &noise, x);
    }
}
