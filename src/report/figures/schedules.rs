//! The noise schedules of the sweep: ᾱ and the log signal-to-noise ratio against t/T.

use super::{Drawn, Figure, Grid, MARGIN, PANEL};
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

const ROW: f64 = 320.0;

/// Of the step with that index.
type Function<'a> = &'a dyn Fn(&NoiseSchedule, usize) -> f64;

fn beta(s: &NoiseSchedule, i: usize) -> f64 {
    s.betas[i]
}

/// −∞ at zero terminal SNR: the line ends before it, the table says it.
fn log_snr(s: &NoiseSchedule, i: usize) -> f64 {
    (s.alpha_bars[i] / (1.0 - s.alpha_bars[i])).ln()
}

fn ratio(s: &NoiseSchedule, i: usize) -> f64 {
    s.posterior_variances[i] / s.betas[i]
}

pub fn draw(study: &Study) -> Result<Drawn, ReportError> {
    let lines = distinct(study)?;
    if lines.is_empty() {
        return Ok(Drawn::skipped("schedules", "the sweep has no runs"));
    }
    let legend = legend(&lines);
    let width = study.width - 2.0 * MARGIN;
    let top = MARGIN + legend.height(width) + 6.0;
    let grid = Grid::of(study, 4, 2, PANEL, ROW);
    let mut scene = Scene::new(study.width, top + grid.height() + MARGIN);
    legend.draw(&mut scene, MARGIN, MARGIN, width);
    let places = grid.places(Rect::new(MARGIN, top, width, 0.0), 28.0);
    let unit = || Axis::linear(0.0, 1.0, 5);
    let all = |f: Function| -> Vec<f64> {
        lines
            .iter()
            .flat_map(|l| (0..l.schedule.betas.len()).map(|i| f(&l.schedule, i)).collect::<Vec<_>>())
            .filter(|v| v.is_finite())
            .collect()
    };
    let longest = lines.iter().map(|l| l.timesteps).max().unwrap_or(1);
    let panels = [
        Panel::new(&mut scene, places[0], "β (variance added by a step)", "t/T", unit(), Axis::around(all(&beta), Scale::Log, 0.04, 6)),
        Panel::new(&mut scene, places[1], "ᾱ (share of signal variance)", "t/T", unit(), unit()),
        Panel::new(
            &mut scene,
            places[2],
            "log SNR = log ᾱ/(1 − ᾱ) (nats)",
            "t/T",
            unit(),
            Axis::around(all(&log_snr), Scale::Linear, 0.04, 7),
        ),
        Panel::new(&mut scene, places[3], "Posterior variance over β", "timestep t", Axis::log(0.94, f64::from(longest)), unit()),
    ];
    let functions: [Function; 4] = [&beta, &|s, i| s.alpha_bars[i], &log_snr, &ratio];
    let mut csv = Csv::new(&["schedule", "timesteps", "t", "beta", "alpha_bar", "log_snr", "posterior_variance_ratio"]);
    for line in &lines {
        let steps = 0..line.schedule.betas.len();
        for (k, (panel, of)) in panels.iter().zip(functions).enumerate() {
            let x = |i: usize| if k == 3 { (i + 1) as f64 } else { (i + 1) as f64 / f64::from(line.timesteps) };
            let points: Vec<(f64, f64)> = steps.clone().map(|i| (x(i), of(&line.schedule, i))).filter(|p| p.1.is_finite()).collect();
            panel.line(&mut scene, &points, line.stroke);
        }
        for i in steps {
            let numbers = functions.map(|of| plain(of(&line.schedule, i)));
            csv.row(&[vec![line.kind.clone(), line.timesteps.to_string(), (i + 1).to_string()], numbers.to_vec()].concat());
        }
    }
    Ok(Drawn::Figure(Box::new(Figure {
        name: "schedules".into(),
        title: "Noise schedules".into(),
        caption: "The schedules that were compared, by definition and without noise. β_t on a logarithmic axis, and ᾱ_t, the share of the variance of \
                  x_t that is signal, against t/T; its log signal-to-noise ratio in nats against t/T, and β̃_t/β_t, the variance of \
                  q(x_{t−1} | x_t, x₀) over that of a step, against t on a logarithmic axis (Nichol and Dhariwal 2021, Fig. 1): 0 at t = 1."
            .into(),
        csv: csv.finish(),
        more_csv: Vec::new(),
        scene,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::synthetic;

    #[test]
    fn the_csv_has_the_ratio_of_variances_from_the_definition() {
        let data = synthetic::sweep();
        let Drawn::Figure(figure) = draw(&Study::new(&data)).unwrap() else { panic!("no figure") };
        let rows: Vec<Vec<f64>> = figure
            .csv
            .lines()
            .filter(|l| l.starts_with("linear,"))
            .map(|l| l.split(',').skip(1).map(|f| f.parse().unwrap()).collect())
            .collect();
        assert_eq!((rows.len(), rows[0][5]), (100, 0.0));
        // β̃/β = (1 − ᾱ_{t−1})/(1 − ᾱ_t), with ᾱ from the betas of the table.
        let mut alpha_bar = 1.0;
        for row in rows {
            let before = alpha_bar;
            alpha_bar *= 1.0 - row[2];
            assert!((row[3] - alpha_bar).abs() < 1e-12 && (row[5] - (1.0 - before) / (1.0 - alpha_bar)).abs() < 1e-9, "{row:?}");
        }
    }
}
