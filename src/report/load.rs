//! From a results store to a [`SweepData`]: the only place where a report reads files of runs.
//!
//! Start at [`load`]. A run that cannot be read in full is kept with what there is and the reason: one damaged file
//! must not hide the rest of a sweep.

use super::ReportError;
use super::history::History;
use super::input::{Arrow, ForwardExamples, NotFinite, PointFrame, Reverse, RunData, SweepData};
use crate::config::{self, RunConfig};
use crate::data::{self, DataSpec, Dataset};
use crate::diffusion::Kernel;
use crate::diffusion::preflight::Preflight;
use crate::named::NamedEnum;
use crate::record::{Evaluation, Split, Weights};
use crate::rng::{self, Purpose};
use crate::store::{LOSSES, LossTable, Manifest, ResultsStore, RunDir, RunState, SweepRecord, SweepRun, fs, read_committed_losses};
use crate::train;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Examples of the figure of the forward process: pictures, or points of a scatter.
const PICTURES: usize = 4;
const POINTS: usize = 500;

/// Everything a report of the sweep `name` shows.
///
/// # Errors
/// If the store has no such sweep or its record cannot be read, or nothing tells the configuration of a run.
pub fn load(store: &ResultsStore, name: &str) -> Result<SweepData, ReportError> {
    let record = store.read_sweep(name)?;
    let folders = store.runs_by_id()?;
    let parts: Vec<Part> = record.runs.par_iter().map(|run| read(run, folders.get(&run.run_id), store.root())).collect();
    let planned = if parts.iter().all(|p| p.config.is_some()) { Ok(BTreeMap::new()) } else { planned(&record) };
    let template = parts.iter().find_map(|p| p.config.clone());
    let mut data_sets: Vec<(DataSpec, Result<Dataset, String>)> = Vec::new();
    let mut runs = Vec::with_capacity(parts.len());
    let mut redrawn: Option<f64> = None;
    for (run, part) in record.runs.iter().zip(parts) {
        let config = match part.config {
            Some(config) => config,
            None => match (&planned, &template) {
                (Ok(all), _) if all.contains_key(&run.run_id) => all[&run.run_id].clone(),
                (_, Some(template)) => like(template, run),
                (Err(message), None) => return Err(ReportError::Configuration { run_id: run.run_id.clone(), message: message.clone() }),
                (Ok(_), None) => {
                    let message = "the experiment no longer expands to it".into();
                    return Err(ReportError::Configuration { run_id: run.run_id.clone(), message });
                }
            },
        };
        redrawn.get_or_insert(config.diffusion.binomial_pi);
        // Mirroring does not change what is in the data.
        let spec = DataSpec { flip: false, ..config.data.clone() };
        if !data_sets.iter().any(|(known, _)| *known == spec) {
            let loaded = data::load(&spec).map_err(|_| format!("the data set `{}` cannot be read here, or has changed", spec.name));
            data_sets.push((spec.clone(), loaded));
        }
        let encoding = data_sets.iter().find(|(known, _)| *known == spec).and_then(|(_, d)| d.as_ref().ok()).map(|d| d.info.encoding);
        runs.push(RunData {
            run: run.clone(),
            state: part.state,
            manifest: part.manifest,
            losses: part.losses,
            history: part.history,
            evaluations: part.evaluations,
            config_text: part.config_text,
            samples: part.samples,
            reverse: part.reverse,
            timesteps: config.diffusion.timesteps,
            schedule: config.diffusion.schedule,
            noise: config.diffusion.noise(),
            kernel: config.diffusion.kernel,
            decoder_floor: encoding.and_then(|e| Preflight::of(&config.diffusion, e).ok()?.decoder_floor),
            data: config.data,
            encoding,
            not_finite: part.not_finite,
            problem: part.problem,
        });
    }
    let redrawn = redrawn.filter(|_| runs.iter().all(|r| r.kernel == Kernel::Binomial));
    let forward = match data_sets.first() {
        Some((_, Ok(dataset))) => Ok(forward(dataset, redrawn)),
        Some((_, Err(reason))) => Err(reason.clone()),
        None => Err("the sweep has no runs".into()),
    };
    let credits = data_sets
        .iter()
        .filter_map(|(_, d)| d.as_ref().ok())
        .map(|d| if d.credit.is_empty() { d.title.clone() } else { format!("{}. {}", d.title, d.credit) })
        .collect();
    Ok(SweepData { record, compared: Vec::new(), runs, forward, credits })
}

/// What the folder of a run says.
struct Part {
    state: RunState,
    manifest: Option<Manifest>,
    losses: LossTable,
    history: History,
    evaluations: Vec<Evaluation>,
    config_text: String,
    config: Option<RunConfig>,
    samples: Vec<(i64, PathBuf)>,
    not_finite: Option<NotFinite>,
    reverse: Option<Reverse>,
    problem: Option<String>,
}

fn read(run: &SweepRun, folder: Option<&RunDir>, root: &Path) -> Part {
    let mut part = Part {
        state: RunState::Pending,
        manifest: None,
        losses: LossTable::default(),
        history: History::default(),
        evaluations: Vec::new(),
        config_text: String::new(),
        config: None,
        samples: Vec::new(),
        not_finite: None,
        reverse: None,
        problem: None,
    };
    let Some(dir) = folder else { return part };
    let mut problems = Vec::new();
    let mut note = |problem: String| problems.push(problem.replace(&format!("{}/", root.display()), ""));
    match dir.state() {
        Ok(state) => part.state = state,
        Err(e) => {
            part.state = RunState::Failed;
            note(e.to_string());
        }
    }
    // A damaged run.json was told with the state.
    part.manifest = dir.manifest().ok().flatten();
    match dir.config_text() {
        Ok(text) => {
            match RunConfig::from_toml(&dir.path().join("config.toml"), &text) {
                Ok(config) => part.config = Some(config),
                Err(e) => note(e.to_string()),
            }
            part.config_text = text;
        }
        Err(e) if part.manifest.is_some() => note(e.to_string()),
        Err(_) => {}
    }
    match dir.read_evaluations() {
        Ok(evaluations) => part.evaluations = evaluations,
        Err(e) => note(e.to_string()),
    }
    // run.json repeats the last evaluation of each kind: it stands in where metrics.jsonl is gone.
    for last in part.manifest.iter().flat_map(|m| &m.evaluations) {
        if !part.evaluations.iter().any(|e| (e.split, e.weights, e.step) == (last.split, last.weights, last.step)) {
            part.evaluations.push(last.clone());
        }
    }
    if fs::is_file(&dir.path().join("losses.parquet")) {
        let committed = part.manifest.as_ref().and_then(|m| m.files.get(LOSSES)).map(String::as_str);
        match read_committed_losses(dir.path(), committed) {
            Ok(losses) => {
                part.not_finite = NotFinite::of(&losses);
                // Without a configuration the largest t that was seen.
                let seen = || losses.t.iter().copied().max().unwrap_or(1);
                part.history = History::of(&losses, part.config.as_ref().map_or_else(seen, |c| c.diffusion.timesteps));
                part.losses = thinned(&losses);
            }
            Err(e) => note(e.to_string()),
        }
    } else if part.state == RunState::Done {
        note("losses.parquet is missing".into());
    }
    match samples(dir) {
        Ok(samples) => part.samples = samples,
        Err(e) => note(e.to_string()),
    }
    if let Some(config) = &part.config {
        match reverse(dir, config) {
            Ok(reverse) => part.reverse = reverse,
            Err(e) => note(e),
        }
    }
    if !problems.is_empty() {
        part.problem = Some(problems.join("; "));
    }
    debug_assert!(folder.is_none_or(|d| d.id() == run.run_id));
    part
}

/// Of every (split, weights) but training its last step: what figures are drawn from by single timestep. The rest would
/// only fill the memory.
fn thinned(all: &LossTable) -> LossTable {
    let mut last: BTreeMap<(Split, Weights), i64> = BTreeMap::new();
    for i in 0..all.t.len() {
        let step = last.entry((all.split[i], all.weights[i])).or_insert(i64::MIN);
        *step = (*step).max(all.step[i]);
    }
    let keep: Vec<usize> =
        (0..all.t.len()).filter(|&i| all.split[i] != Split::Train && last[&(all.split[i], all.weights[i])] == all.step[i]).collect();
    fn pick<T: Copy>(from: &[T], keep: &[usize]) -> Vec<T> {
        keep.iter().map(|&i| from[i]).collect()
    }
    LossTable {
        split: pick(&all.split, &keep),
        weights: pick(&all.weights, &keep),
        step: pick(&all.step, &keep),
        t: pick(&all.t, &keep),
        t_weight: pick(&all.t_weight, &keep),
        n: pick(&all.n, &keep),
        n_nonfinite: pick(&all.n_nonfinite, &keep),
        mse_mean: pick(&all.mse_mean, &keep),
        mse_m2: pick(&all.mse_m2, &keep),
        x0_mse_mean: pick(&all.x0_mse_mean, &keep),
        vb_mean: pick(&all.vb_mean, &keep),
        vb_m2: pick(&all.vb_m2, &keep),
        mse_floor: pick(&all.mse_floor, &keep),
        vb_floor: pick(&all.vb_floor, &keep),
        grad_norm_mean: pick(&all.grad_norm_mean, &keep),
    }
}

fn samples(dir: &RunDir) -> Result<Vec<(i64, PathBuf)>, crate::store::StoreError> {
    let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.strip_suffix(".png")?.parse().ok();
    let mut found: Vec<(i64, PathBuf)> =
        fs::list(&dir.path().join("samples"))?.into_iter().filter_map(|path| Some((step(&path)?, path))).collect();
    found.sort();
    Ok(found)
}

/// What the run has kept of the way of its final samples; `None` where it is not finished, or older than that file.
fn reverse(dir: &RunDir, config: &RunConfig) -> Result<Option<Reverse>, String> {
    let [sheet, table] = ["png", "csv"].map(|ending| dir.reverse_path(config.train.steps, ending));
    if fs::is_file(&sheet) {
        let timesteps = train::reverse::timesteps(config.diffusion.timesteps);
        let samples = (config.sample.count as usize).min(train::reverse::SHOWN);
        return Ok(Some(Reverse::Pictures { timesteps, samples, sheet }));
    }
    if !fs::is_file(&table) {
        return Ok(None);
    }
    let bytes = fs::read(&table).map_err(|e| e.to_string())?;
    let text = String::from_utf8(bytes).map_err(|_| format!("{} is not text", table.display()))?;
    points(&text).map(Some).ok_or_else(|| format!("{} is damaged", table.display()))
}

/// The table of [`train::reverse`]; `None` if it is not one.
fn points(text: &str) -> Option<Reverse> {
    let (mut frames, mut field): (Vec<PointFrame>, Vec<Arrow>) = (Vec::new(), Vec::new());
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let [what, t, x, y, u, v] = fields[..] else { return None };
        let number = |s: &str| s.parse::<f32>().ok();
        let (t, at) = (t.parse().ok()?, [number(x)?, number(y)?]);
        if what == "score" {
            field.push(Arrow { t, at, score: [number(u)?, number(v)?] });
            continue;
        }
        if frames.last().is_none_or(|f| f.t != t) {
            frames.push(PointFrame { t, x_t: Vec::new(), x0: Vec::new() });
        }
        let frame = frames.last_mut()?;
        match what {
            "x_t" => frame.x_t.push(at),
            "x0" => frame.x0.push(at),
            _ => return None,
        }
    }
    Some(Reverse::Points { frames, field })
}

/// The configurations of runs that have no folder yet: the experiment, expanded once more.
fn planned(record: &SweepRecord) -> Result<BTreeMap<String, RunConfig>, String> {
    let inspect = |spec: &DataSpec| data::inspect(spec).map_err(|e| e.to_string());
    let extended: Vec<_> = record.extended.iter().map(|(path, text)| config::Extended { path: path.into(), text: text.clone() }).collect();
    let grid = config::from_record(Path::new(&record.source), &record.experiment, &extended, &record.overrides, &inspect)
        .map_err(|e| e.to_string())?;
    Ok(grid.runs.into_iter().map(|run| (run.id.0, run.config)).collect())
}

/// Another run's configuration with the schedule and T that the axes of `run` name.
fn like(template: &RunConfig, run: &SweepRun) -> RunConfig {
    let mut config = template.clone();
    for (key, value) in &run.axes {
        match key.as_str() {
            "diffusion.schedule" => config.diffusion.schedule = NamedEnum::from_name(value).unwrap_or(config.diffusion.schedule),
            "diffusion.kernel" => config.diffusion.kernel = NamedEnum::from_name(value).unwrap_or(config.diffusion.kernel),
            "diffusion.timesteps" => config.diffusion.timesteps = value.replace('_', "").parse().unwrap_or(config.diffusion.timesteps),
            _ => {}
        }
    }
    config
}

/// The first test examples and the noise that is mixed into them.
fn forward(dataset: &Dataset, redrawn: Option<f64>) -> ForwardExamples {
    let shape = dataset.info.shape;
    let count = dataset.test.len().min(if shape.is_image() { PICTURES } else { POINTS });
    let noise = rng::stream(rng::EVALUATION_SEED, Purpose::EvaluationNoise, 0);
    let numbers = |fill: &dyn Fn(usize, &mut [f32])| {
        (0..count)
            .map(|i| {
                let mut out = vec![0.0; shape.dims()];
                fill(i, &mut out);
                out
            })
            .collect()
    };
    ForwardExamples {
        shape,
        examples: numbers(&|i, out| dataset.test.scaled(i, out)),
        noise: numbers(&|i, out| noise.normals(i as u32, out)),
        redrawn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::LossRow;
    use crate::report::{Answer, Options, Study, build, synthetic};
    use crate::store::{RunColumns, write_losses};

    const EXPERIMENT: &str = "name = \"tiny\"\nseeds = [0, 1]\n[base]\ndata.name = \"swiss_roll\"\nmodel.kind = \"mlp\"\ndiffusion.timesteps = 40\neval.timesteps = \"all\"\n\
                              [grid]\ndiffusion.schedule = [\"linear_scaled\", \"cosine\"]\n";

    /// A store with the first three of four runs done, made of the synthetic sweep's numbers.
    fn store(root: &Path) -> ResultsStore {
        let store = ResultsStore::open(root).unwrap();
        let inspect = |spec: &DataSpec| data::inspect(spec).map_err(|e| e.to_string());
        let grid = config::from_text(Path::new("tiny.toml"), EXPERIMENT, &[], &inspect).unwrap();
        let made = synthetic::sweep();
        let runs: Vec<SweepRun> = grid
            .runs
            .iter()
            .map(|r| SweepRun { run_id: r.id.0.clone(), slug: r.slug.clone(), cell: r.cell.clone(), axes: r.axes.clone(), seed: r.seed })
            .collect();
        for (run, from) in grid.runs.iter().zip(&made.runs).take(3) {
            let dir = store.run_dir(&run.slug, &run.id.0).unwrap();
            dir.create(&run.config.to_toml()).unwrap();
            let c = &run.config;
            let columns = RunColumns {
                run_id: run.id.0.clone(),
                slug: run.slug.clone(),
                schedule: c.diffusion.schedule.to_string(),
                loss: "simple".into(),
                prediction: "epsilon".into(),
                variance: "fixed_small".into(),
                model: "mlp".into(),
                data: "swiss_roll".into(),
                timesteps: 40,
                batch_size: 8,
                lr: 1e-3,
                seed: run.seed,
            };
            let l = &from.losses;
            let rows: Vec<LossRow> = (0..l.t.len())
                .map(|i| LossRow {
                    split: l.split[i],
                    weights: l.weights[i],
                    step: l.step[i],
                    t: l.t[i],
                    t_weight: 1.0,
                    n: l.n[i],
                    n_nonfinite: 0,
                    mse: (l.t[i] > 0).then_some((l.mse_mean[i], 0.0)),
                    x0_mse_mean: (l.t[i] > 0).then_some(0.1),
                    vb: (if l.vb_mean[i].is_nan() { 0.0 } else { l.vb_mean[i] }, 0.0),
                    mse_floor: None,
                    vb_floor: None,
                    grad_norm_mean: None,
                })
                .filter(|row| row.t <= 40)
                .collect();
            write_losses(dir.path(), &columns, &rows).unwrap();
            dir.write_evaluations(&from.evaluations).unwrap();
            let manifest =
                Manifest { run_id: run.id.0.clone(), slug: run.slug.clone(), files: Default::default(), ..from.manifest.clone().unwrap() };
            dir.write_manifest(&manifest).unwrap();
        }
        store
            .write_sweep(&SweepRecord {
                name: "tiny".into(),
                description: String::new(),
                experiment: EXPERIMENT.into(),
                source: "tiny.toml".into(),
                overrides: Vec::new(),
                axes: grid.axes.clone(),
                runs,
                ..made.record
            })
            .unwrap();
        store
    }

    #[test]
    fn a_sweep_comes_back_with_its_runs_finished_or_not_and_can_be_built() {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        let data = load(&store, "tiny").unwrap();
        let states: Vec<RunState> = data.runs.iter().map(|r| r.state).collect();
        assert_eq!(states, [RunState::Done, RunState::Done, RunState::Done, RunState::Pending]);
        assert!(
            data.runs.iter().all(|r| r.timesteps == 40 && r.problem.is_none()),
            "{:?}",
            data.runs.iter().map(|r| &r.problem).collect::<Vec<_>>()
        );
        assert_eq!(data.runs[3].schedule.to_string(), "cosine", "known from the experiment file alone");
        let examples = data.forward.as_ref().unwrap();
        assert_eq!((examples.examples.len(), examples.noise[7].len()), (POINTS, 2));
        let study = Study::new(&data);
        assert_eq!(Answer::of(&study).results.len(), 2);
        assert!(study.differential());
        let out = root.path().join("reports/tiny");
        let summary = build(&data, &out, &Options { png_scale: 0.5, live: None }).unwrap();
        assert_eq!((summary.runs, summary.finished), (4, 3));
        let html = std::fs::read_to_string(&summary.index).unwrap();
        assert!(!html.contains(root.path().to_str().unwrap()), "no path of this machine");
    }

    #[test]
    fn damaged_files_are_told_and_do_not_hide_the_other_runs() {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        let ids: Vec<String> = store.read_sweep("tiny").unwrap().runs.iter().map(|r| r.run_id.clone()).collect();
        let by_id = store.runs_by_id().unwrap();
        std::fs::write(by_id[&ids[0]].path().join("losses.parquet"), b"PAR1 torn").unwrap();
        std::fs::write(by_id[&ids[1]].path().join("run.json"), b"{").unwrap();
        let data = load(&store, "tiny").unwrap();
        for i in [0, 1] {
            let problem = data.runs[i].problem.clone().unwrap();
            assert!(problem.contains("damaged") && !problem.contains(root.path().to_str().unwrap()), "{problem}");
        }
        assert_eq!((data.runs[1].state, data.runs[2].problem.clone()), (RunState::Failed, None));
        build(&data, &root.path().join("out"), &Options { png_scale: 0.5, live: None }).unwrap();
    }

    #[test]
    fn the_way_of_points_is_read_back_and_a_torn_table_is_refused() {
        let text = "what,t,x,y,u,v\nx_t,40,1.5,-2,,\nx0,40,0.5,0,,\nx_t,0,0.25,0.125,,\nx0,0,0.25,0.125,,\nscore,20,1,2,3,-4\n";
        let Some(Reverse::Points { frames, field }) = points(text) else { panic!("not read") };
        assert_eq!((frames.len(), frames[0].x_t[0], frames[0].x0[0], frames[1].t), (2, [1.5, -2.0], [0.5, 0.0], 0));
        assert_eq!(field, [Arrow { t: 20, at: [1.0, 2.0], score: [3.0, -4.0] }]);
        assert_eq!(points(&text[..text.len() - 5]), None);
    }

    #[test]
    fn only_the_last_evaluation_is_kept_by_timestep() {
        let mut all = LossTable::default();
        for step in [10, 20] {
            synthetic::push(&mut all, Split::Train, Weights::Raw, step, 1, 1, 0.1, 0.1);
            synthetic::push(&mut all, Split::Val, Weights::Ema, step, 1, 1, 0.1, 0.1);
        }
        let kept = thinned(&all);
        assert_eq!((kept.step, kept.split), (vec![20], vec![Split::Val]));
    }
}
