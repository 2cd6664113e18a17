//! The grid: every run of an experiment, complete, checked and named before the first one starts.
//!
//! Start at [`load`]. The data's facts come through a function of the caller, so nothing here opens a data set.

use super::check::{Problem, problems};
use super::error::{ConfigErrors, Fault, Place, Sources};
use super::expand::{self, Cell};
use super::keys::{KEYS, KeyDefault};
use super::overrides;
use super::run::{RunConfig, RunId};
use super::suggest;
use super::sweep_file::{Assignment, SweepFile, is_file_name};
use super::value::plain;
use crate::data::{self, DataInfo, DataSpec};
use crate::record::Axis;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// More runs than this are a mistake in the file, not a plan.
const MOST_RUNS: usize = 100_000;

/// Finds out what a configuration needs to know of a data set; the message of a failure is shown to the user.
pub type Inspect<'a> = dyn Fn(&DataSpec) -> Result<DataInfo, String> + 'a;

/// An experiment, expanded.
#[derive(Clone, Debug)]
pub struct Grid {
    pub name: String,
    pub description: String,
    /// The path as typed.
    pub source: PathBuf,
    /// The experiment file itself.
    pub text: String,
    pub overrides: Vec<String>,
    /// In the order of the file; values in their normal form.
    pub axes: Vec<Axis>,
    /// In the order of the file, later axes faster, seeds fastest; no two of one identity.
    pub runs: Vec<GridRun>,
    pub run: RunSettings,
    pub report: ReportSettings,
    /// `4 × 2 = 8 cells × 2 seeds = 16 runs`.
    pub arithmetic: String,
}

/// One run of a grid.
#[derive(Clone, Debug)]
pub struct GridRun {
    pub id: RunId,
    pub slug: String,
    pub config: RunConfig,
    pub info: Arc<DataInfo>,
    /// Axis key and value, in the order of the axes; the seed is not among them.
    pub axes: Vec<(String, String)>,
    /// What tells this cell from the others: `schedule = cosine, loss = vlb`. Empty where there are no axes.
    pub cell: String,
    pub seed: i64,
}

/// `[run]` and `[report]`: never part of a run's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSettings {
    pub run: RunSettings,
    pub report: ReportSettings,
}

/// The `[run]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSettings {
    /// Runs at a time; `None` lets the program choose.
    pub jobs: Option<usize>,
    /// Steps between checkpoints.
    pub checkpoint_every: u32,
    /// Keep every checkpoint, not only the newest.
    pub keep: bool,
}

/// The `[report]` section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportSettings {
    /// The heading; the experiment's name where empty.
    pub title: String,
}

impl Default for FileSettings {
    fn default() -> Self {
        Self { run: RunSettings { jobs: None, checkpoint_every: 500, keep: false }, report: ReportSettings::default() }
    }
}

/// Reads, expands and checks an experiment file.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn load(path: &Path, overrides: &[String], inspect: &Inspect<'_>) -> Result<Grid, ConfigErrors> {
    let refuse = |message: String, help: Option<String>| {
        let sources = Sources::new(path, "", &[]);
        ConfigErrors::new(path, vec![sources.fault(message, Vec::new(), help)])
    };
    let bytes = std::fs::read(path).map_err(|error| refuse(format!("the experiment file cannot be read: {error}"), neighbours(path)))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1;
        refuse(format!("not UTF-8 text: line {line} has a byte that no character begins with"), Some("save the file as UTF-8".to_owned()))
    })?;
    from_text(path, &text, overrides, inspect)
}

/// [`load`] for a text that is already in memory; `path` names it in messages and gives the default name.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn from_text(path: &Path, text: &str, overrides: &[String], inspect: &Inspect<'_>) -> Result<Grid, ConfigErrors> {
    let sources = Sources::new(path, text, overrides);
    let (mut file, mut faults) = SweepFile::parse(text, &sources);
    faults.extend(overrides::apply(&mut file, overrides, &sources));
    if faults.is_empty() && !file.asks {
        let help = "name at least one axis, for example:\n[grid]\ndiffusion.schedule = [\"linear\", \"cosine\"]".to_owned();
        faults.push(sources.fault("the file asks for no run: it has neither [grid] nor [base] nor seeds", Vec::new(), Some(help)));
    }
    let runs = expand::count(&file.axes).and_then(|n| n.checked_mul(file.seeds.len())).unwrap_or(usize::MAX);
    if faults.is_empty() && runs > MOST_RUNS {
        let places = file.axes.iter().map(|axis| (axis.points[0].written.place.clone(), format!("{} values", axis.points.len())));
        faults.push(sources.fault(
            format!("the grid has more than {MOST_RUNS} runs"),
            places.collect(),
            Some("split the question".to_owned()),
        ));
    }
    if !faults.is_empty() {
        return Err(ConfigErrors::new(path, faults));
    }
    let runs = resolve_all(&file, &sources, inspect).map_err(|faults| ConfigErrors::new(path, faults))?;
    let axes = file
        .axes
        .iter()
        .map(|axis| Axis { key: axis.key.key.to_owned(), values: axis.points.iter().map(|point| plain(&point.written.value)).collect() });
    Ok(Grid {
        name: file.name.unwrap_or_else(|| stem(path)),
        description: file.description,
        source: path.to_owned(),
        text: text.to_owned(),
        overrides: overrides.to_vec(),
        arithmetic: expand::arithmetic(&file.axes, file.seeds.len(), runs.len()),
        axes: axes.collect(),
        runs,
        run: file.settings.run,
        report: file.settings.report,
    })
}

fn resolve_all(file: &SweepFile, sources: &Sources, inspect: &Inspect<'_>) -> Result<Vec<GridRun>, Vec<Fault>> {
    let mut inspector = Inspector { inspect, known: Vec::new() };
    let mut told = HashSet::new();
    let (mut faults, mut runs, mut ids) = (Vec::new(), Vec::new(), HashSet::new());
    for cell in expand::cells(file) {
        let (config, info, wrong) = match resolve(&cell, &mut inspector) {
            Ok((config, info)) => {
                let wrong = problems(&config, &info);
                (config, info, wrong)
            }
            Err(problem) => {
                report(&problem, &cell, file, sources, &mut told, &mut faults);
                continue;
            }
        };
        for problem in &wrong {
            report(problem, &cell, file, sources, &mut told, &mut faults);
        }
        if !faults.is_empty() {
            continue;
        }
        let axes: Vec<_> = cell.along_axes().iter().map(|a| (a.key.key.to_owned(), plain(&a.written.value))).collect();
        for &seed in &file.seeds {
            let config = RunConfig { seed, ..config.clone() };
            let id = config.id();
            if ids.insert(id.clone()) {
                let (slug, axes, cell) = (config.slug(), axes.clone(), cell.name());
                runs.push(GridRun { id, slug, config, info: info.clone(), axes, cell, seed });
            }
        }
    }
    if faults.is_empty() { Ok(runs) } else { Err(faults) }
}

/// The complete configuration of a cell, at seed 0: fixed defaults, then what was written, then what depends on the data.
fn resolve(cell: &Cell<'_>, inspector: &mut Inspector<'_>) -> Result<(RunConfig, Arc<DataInfo>), Problem> {
    let mut config = RunConfig::literal_defaults();
    for assignment in &cell.assignments {
        let Assignment { key, written } = assignment;
        (key.set)(&mut config, &written.value).map_err(|allowed| Problem {
            keys: vec![key.key],
            message: format!("`{}` cannot have this value", key.key),
            label: format!("must be {allowed}"),
            help: String::new(),
        })?;
    }
    let written = |key: &str| cell.assignments.iter().any(|a| a.key.key == key);
    if let Some(path) = &config.data.path
        // A file under the name of a built-in set would be mistaken for it.
        && (!written("data.name") || data::builtins().iter().any(|b| b.name == config.data.name))
    {
        config.data.name = path.file_stem().map_or_else(|| "file".to_owned(), |stem| stem.to_string_lossy().into_owned());
    }
    let expected = std::mem::take(&mut config.data.fingerprint);
    let info = inspector.facts(&config.data).map_err(|message| Problem {
        keys: vec![if config.data.path.is_some() { "data.path" } else { "data.name" }],
        message: format!("the data cannot be used: {message}"),
        label: String::new(),
        help: match &config.data.path {
            Some(path) if !path.exists() => format!("`ddpm-lab data import SOURCE {}` makes such a file", path.display()),
            _ => String::new(),
        },
    })?;
    if !expected.is_empty() && expected != info.fingerprint {
        let what = config.data.path.as_ref().map_or_else(|| format!("\"{}\"", config.data.name), |path| path.display().to_string());
        return Err(Problem {
            keys: vec!["data.fingerprint"],
            message: format!("the data changed: {what} no longer has the values this configuration was made for"),
            label: format!("now {}", info.fingerprint),
            help: "restore the data, or delete `data.fingerprint` to run on what is there now, under another id".to_owned(),
        });
    }
    for spec in KEYS {
        if let KeyDefault::Derived { fill, .. } = spec.default
            && (!written(spec.key) || spec.key == "data.fingerprint")
        {
            fill(&mut config, &info);
        }
    }
    Ok((config, info))
}

/// Looks at each data set once.
struct Inspector<'a> {
    inspect: &'a Inspect<'a>,
    known: Vec<(DataSpec, Result<Arc<DataInfo>, String>)>,
}

impl Inspector<'_> {
    fn facts(&mut self, spec: &DataSpec) -> Result<Arc<DataInfo>, String> {
        // Mirroring does not change what is in the data.
        let spec = DataSpec { flip: false, ..spec.clone() };
        if let Some((_, facts)) = self.known.iter().find(|(known, _)| *known == spec) {
            return facts.clone();
        }
        let facts = (self.inspect)(&spec).map(Arc::new);
        self.known.push((spec, facts.clone()));
        facts
    }
}

/// Turns a problem of a cell into a fault at the places its values were written; each only once.
fn report(problem: &Problem, cell: &Cell<'_>, file: &SweepFile, sources: &Sources, told: &mut HashSet<String>, faults: &mut Vec<Fault>) {
    let written = |key: &&str| cell.assignments.iter().find(|a| a.key.key == *key).copied();
    let mut labels: Vec<(Place, String)> = Vec::new();
    let mut help = vec![problem.help.clone()];
    for key in &problem.keys {
        match written(key) {
            Some(a) if *key == problem.keys[0] => labels.push((a.written.place.clone(), problem.label.clone())),
            Some(a) => labels.push((a.written.place.clone(), format!("with this `{key}`"))),
            None if *key == "data.name" => {
                // The data may be named by its file.
                labels.extend(written(&"data.path").map(|a| (a.written.place.clone(), "with this data".to_owned())));
            }
            None if KEYS.iter().any(|s| s.key == *key && matches!(s.default, KeyDefault::Literal(_))) => {
                let default = KEYS.iter().find(|s| s.key == *key).map_or("", |s| s.default_words());
                help.push(format!("`{key}` is not given; its default is {default}"));
            }
            None => {}
        }
    }
    let on_axes = problem.keys.iter().filter(|key| file.axes.iter().any(|axis| axis.key.key == **key)).count();
    if on_axes > 1 {
        help.push("[grid] is a product: every value of one axis meets every value of the others".to_owned());
    }
    help.retain(|line| !line.is_empty());
    let help = (!help.is_empty()).then(|| help.join("\n"));
    if told.insert(format!("{} {labels:?}", problem.message)) {
        faults.push(sources.fault(problem.message.clone(), labels, help));
    }
}

/// A file's stem, made fit to name files.
fn stem(path: &Path) -> String {
    let stem = path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    if is_file_name(&stem) {
        return stem;
    }
    let fit = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    format!("x{}", stem.chars().map(fit).take(79).collect::<String>())
}

/// Help for a missing file: the experiment files beside it, the nearest name first.
fn neighbours(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).ok()?;
    let names = entries.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".toml")).collect();
    names.sort_unstable();
    let wanted = path.file_name()?.to_string_lossy().into_owned();
    match suggest::nearest(&wanted, names.iter().map(String::as_str)) {
        Some(near) => Some(format!("did you mean {}?", folder.join(near).display())),
        None if names.is_empty() => None,
        None => Some(format!("{} has {}", folder.display(), names.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::FILE_KEYS;

    #[test]
    fn settings_default_to_what_the_key_table_says() {
        let settings = FileSettings::default();
        for spec in FILE_KEYS {
            let value: toml::Table = toml::from_str(&format!("x = {}", spec.default_words())).unwrap();
            assert_eq!((spec.get)(&settings), value["x"], "{}", spec.key);
        }
    }
}
