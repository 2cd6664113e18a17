//! The noise schedules of the sweep: ᾱ and the log signal-to-noise ratio against t/T.

use super::{Drawn, Figure, MARGIN, WIDTH};
use crate::diffusion::{NoiseSchedule, ScheduleSpec};
use crate::report::ReportError;
use crate::report::draw::axis::{Axis, Scale};
use crate::report::draw::{Entry, Legend, Panel, Rect, Rgb, Scene, Stroke, Swatch};
use crate::report::study::Study;
use crate::report::text::{Csv, plain};
use crate::report::theme::{DASHES, GREY, PALETTE};

/// A schedule of the sweep with its look.
pub struct Line {
    pub label: String,
    /// The schedule in words, without T.
    pub kind: String,
    pub timesteps: u32,
    pub schedule: NoiseSchedule,
    pub stroke: Stroke,
}

/// The distinct (schedule, T) in the order of the file. Where colour stands for the schedule everywhere else, it does here.
pub fn distinct(study: &Study) -> Result<Vec<Line>, ReportError> {
    let mut pairs: Vec<&ScheduleSpec> = Vec::new();
    for run in &study.data.runs {
        if !pairs.contains(&&run.noise) {
            pairs.push(&run.noise);
        }
    }
    let mut kinds: Vec<String> = Vec::new();
    let mut lengths: Vec<u32> = Vec::new();
    for spec in &pairs {
        if !kinds.contains(&spec.to_string()) {
            kinds.push(spec.to_string());
        }
        if !lengths.contains(&spec.timesteps) {
            lengths.push(spec.timesteps);
        }
    }
    let colors = colors_of(study, &kinds);
    pairs
        .iter()
        .map(|spec| {
            let (kind, timesteps) = (spec.to_string(), spec.timesteps);
            let (k, l) = (kinds.iter().position(|x| *x == kind).unwrap_or(0), lengths.iter().position(|x| *x == timesteps).unwrap_or(0));
            let schedule =
                NoiseSchedule::of(spec).map_err(|e| ReportError::Schedule { schedule: kind.clone(), timesteps, message: e.to_string() })?;
            let label = if lengths.len() > 1 { format!("{kind}, T = {timesteps}") } else { kind.clone() };
            let stroke = if kinds.len() == 1 && lengths.len() > 1 {
                Stroke { color: PALETTE[l % PALETTE.len()], width: 2.5, dash: DASHES[l / PALETTE.len() % DASHES.len()] }
            } else {
                Stroke { color: colors[k], width: 2.5, dash: DASHES[l % DASHES.len()] }
            };
            Ok(Line { label, kind, timesteps, schedule, stroke })
        })
        .collect()
}

fn colors_of(study: &Study, kinds: &[String]) -> Vec<Rgb> {
    let fixed: Vec<Option<Rgb>> = kinds
        .iter()
        .map(|kind| {
            let mut colors = study.cells.iter().filter(|c| c.runs[0].data.noise.to_string() == *kind).map(|c| c.look.color);
            let first = colors.next()?;
            colors.all(|c| c == first).then_some(first)
        })
        .collect();
    let distinct = (0..fixed.len()).all(|i| fixed[i].is_some() && !fixed[..i].contains(&fixed[i]));
    if distinct { fixed.into_iter().flatten().collect() } else { (0..kinds.len()).map(|i| PALETTE[i % PALETTE.len()]).collect() }
}

/// One entry for each line, or colours and dashes by themselves where every schedule comes with every T.
fn legend(lines: &[Line]) -> Legend {
    let mut kinds: Vec<&Line> = Vec::new();
    let mut lengths: Vec<&Line> = Vec::new();
    for line in lines {
        if !kinds.iter().any(|l| l.kind == line.kind) {
            kinds.push(line);
        }
        if !lengths.iter().any(|l| l.timesteps == line.timesteps) {
            lengths.push(line);
        }
    }
    let product = kinds.len() > 1 && lengths.len() > 1 && lengths.len() <= DASHES.len() && kinds.len() * lengths.len() == lines.len();
    if !product {
        return Legend { entries: lines.iter().map(|l| Entry { label: l.label.clone(), swatch: Swatch::Line(l.stroke) }).collect() };
    }
    let name = |label: &str| Entry { label: label.into(), swatch: Swatch::None };
    let mut entries = vec![name("schedule:")];
    entries.extend(kinds.iter().map(|l| Entry { label: l.kind.to_string(), swatch: Swatch::Line(Stroke { dash: &[], ..l.stroke }) }));
    entries.push(name("T:"));
    entries
        .extend(lengths.iter().map(|l| Entry { label: l.timesteps.to_string(), swatch: Swatch::Line(Stroke { color: GREY, ..l.stroke }) }));
    Legend { entries }
}

pub fn draw(study: &Study) -> Result<Drawn, ReportError> {
    let lines = distinct(study)?;
    if lines.is_empty() {
        return Ok(Drawn::skipped("schedules", "the sweep has no runs"));
    }
    let legend = legend(&lines);
    let width = WIDTH - 2.0 * MARGIN;
    let top = MARGIN + legend.height(width) + 6.0;
    let mut scene = Scene::new(WIDTH, top + 440.0);
    legend.draw(&mut scene, MARGIN, MARGIN, width);
    let halves = Rect::new(MARGIN, top, width, 440.0 - MARGIN).columns(2, 28.0);
    // −∞ at zero terminal SNR: the line ends before it, the table says it.
    let log_snr = |a: f64| (a / (1.0 - a)).ln();
    let unit = || Axis::linear(0.0, 1.0, 5);
    let left = Panel::new(&mut scene, halves[0], "ᾱ (share of signal variance)", "t/T", unit(), unit());
    let values = lines.iter().flat_map(|l| l.schedule.alpha_bars.iter().map(|a| log_snr(*a))).filter(|v| v.is_finite());
    let right =
        Panel::new(&mut scene, halves[1], "log SNR = log ᾱ/(1 − ᾱ) (nats)", "t/T", unit(), Axis::around(values, Scale::Linear, 0.04, 7));
    let mut csv = Csv::new(&["schedule", "timesteps", "t", "beta", "alpha_bar", "log_snr"]);
    for line in &lines {
        let points = |f: &dyn Fn(f64) -> f64| -> Vec<(f64, f64)> {
            let at = |i: usize| (i + 1) as f64 / f64::from(line.timesteps);
            line.schedule.alpha_bars.iter().enumerate().map(|(i, a)| (at(i), f(*a))).filter(|(_, y)| y.is_finite()).collect()
        };
        left.line(&mut scene, &points(&|a| a), line.stroke);
        right.line(&mut scene, &points(&log_snr), line.stroke);
        for (i, (beta, a)) in line.schedule.betas.iter().zip(&line.schedule.alpha_bars).enumerate() {
            csv.row(&[line.kind.clone(), line.timesteps.to_string(), (i + 1).to_string(), plain(*beta), plain(*a), plain(log_snr(*a))]);
        }
    }
    Ok(Drawn::Figure(Box::new(Figure {
        name: "schedules".into(),
        title: "Noise schedules".into(),
        caption: "The schedules that were compared, by definition and without noise. Left: ᾱ_t, the share of the variance of x_t that is signal. Right: its \
                  log signal-to-noise ratio in nats. Both against t/T."
            .into(),
        csv: csv.finish(),
        more_csv: Vec::new(),
        scene,
    })))
}
