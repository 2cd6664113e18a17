//! The grid: every run of an experiment, complete, checked and named before the first one starts.
//!
//! Start at [`load`]. The data's facts come through a function of the caller, so nothing here opens a data set.

use super::check::{Problem, problems};
use super::error::{ConfigErrors, Fault, Place, Sources};
use super::expand::{self, Arithmetic, Cell};
use super::extends::{self, Extended, Unreadable};
use super::keys::{KEYS, KeyDefault};
use super::overrides;
use super::reference;
use super::run::{RunConfig, RunId};
use super::sweep_file::{Assignment, Exclude, SweepFile, is_file_name};
use super::value::plain;
use crate::data::{self, DataInfo, DataSpec};
use crate::record::{Axis, Reference};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    /// The files whose `[base]` it takes over, the nearest first.
    pub extended: Vec<Extended>,
    /// In the order of the file; values in their normal form.
    pub axes: Vec<Axis>,
    /// In the order of the file, later axes faster, seeds fastest; no two of one identity.
    pub runs: Vec<GridRun>,
    /// Published values.
    pub references: Vec<Reference>,
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
    /// What tells this cell from the others: `schedule = cosine, loss = vlb`, or the name of a case. Empty where there are
    /// no axes.
    pub cell: String,
    pub seed: i64,
    /// The keys that something else than a constant of the file sets.
    pub own: Vec<&'static str>,
    /// Whether `--only` wants it.
    pub picked: bool,
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
    /// Steps between checkpoints; 0 lets the program choose.
    pub checkpoint_every: u32,
    /// Keep every checkpoint, not only the newest.
    pub keep: bool,
    /// More runs than this are taken for a mistake in the file.
    pub max_runs: u32,
}

/// The `[report]` section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportSettings {
    /// The heading; the experiment's name where empty.
    pub title: String,
}

impl Default for FileSettings {
    fn default() -> Self {
        Self { run: RunSettings { jobs: None, checkpoint_every: 0, keep: false, max_runs: 10_000 }, report: ReportSettings::default() }
    }
}

/// Reads, expands and checks an experiment file.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn load(path: &Path, overrides: &[String], inspect: &Inspect<'_>) -> Result<Grid, ConfigErrors> {
    let text = extends::read_text(path).map_err(|Unreadable { message, help }| {
        let sources = Sources::new(path, "", &[]);
        ConfigErrors::new(path, vec![sources.fault(message, Vec::new(), help)])
    })?;
    from_text(path, &text, overrides, inspect)
}

/// [`load`] for a text that is already in memory; `path` names it in messages, gives the default name, and is where
/// `extends` starts from.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn from_text(path: &Path, text: &str, overrides: &[String], inspect: &Inspect<'_>) -> Result<Grid, ConfigErrors> {
    expanded(path, text, &extends::read_text, overrides, inspect)
}

/// [`from_text`] for an experiment that was recorded with the files it extends: none is read.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn from_record(
    path: &Path,
    text: &str,
    extended: &[Extended],
    overrides: &[String],
    inspect: &Inspect<'_>,
) -> Result<Grid, ConfigErrors> {
    let read = |path: &Path| match extended.iter().find(|known| known.path == path) {
        Some(known) => Ok(known.text.clone()),
        None => Err(Unreadable { message: "this file was not recorded".to_owned(), help: None }),
    };
    expanded(path, text, &read, overrides, inspect)
}

fn expanded(
    path: &Path,
    text: &str,
    read: &dyn Fn(&Path) -> Result<String, Unreadable>,
    overrides: &[String],
    inspect: &Inspect<'_>,
) -> Result<Grid, ConfigErrors> {
    let mut sources = Sources::new(path, text, overrides);
    let (extended, mut faults) = extends::chain(path, text, read, &mut sources);
    let (mut file, mut more) = SweepFile::parse(text, &extended, &sources);
    file.lost.some |= !faults.is_empty();
    faults.append(&mut more);
    faults.extend(overrides::apply(&mut file, overrides, &sources));
    if faults.is_empty() && !file.asks {
        let help = "name at least one axis, for example:\n[grid]\ndiffusion.schedule = [\"linear\", \"cosine\"]".to_owned();
        let message = if text.trim().is_empty() {
            "the experiment file is empty"
        } else {
            "the file asks for no run: it has neither [grid] nor [[zip]], [[case]], [[block]], [base] or seeds"
        };
        faults.push(sources.fault(message, Vec::new(), Some(help)));
    }
    let arithmetic = Arithmetic::of(&file);
    let most = file.settings.run.max_runs as usize;
    if arithmetic.cells.saturating_mul(file.seeds.len()) > most {
        faults.push(too_many(&file, &arithmetic, &sources));
        return Err(ConfigErrors::new(path, faults));
    }
    let cells = expand::cells(&file);
    // What a replaced axis no longer has, the file may still exclude or compare with.
    let whole = faults.is_empty() && overrides.is_empty();
    if whole {
        faults.extend(expand::idle_excludes(&file).into_iter().map(|exclude| idle(exclude, &file, &sources)));
    }
    if faults.is_empty() && cells.is_empty() {
        let labels = file.excludes.iter().map(|e| (e.place.clone(), String::new())).collect();
        faults.push(sources.fault("every cell is excluded: there is nothing to run", labels, None));
    }
    let (references, unmet) = reference::references(&file.published, &cells);
    if whole {
        faults.extend(unmet.into_iter().map(|published| {
            let help = "name values that a cell has, or leave `where` out for the whole sweep".to_owned();
            sources.fault(
                "this reference is for no cell of the grid",
                vec![(published.place.clone(), "no cell has all of this".to_owned())],
                Some(help),
            )
        }));
    }
    let runs = resolve_all(&cells, &file, &sources, inspect, &mut faults);
    if !faults.is_empty() {
        return Err(ConfigErrors::new(path, faults));
    }
    Ok(Grid {
        name: file.name.clone().unwrap_or_else(|| stem(path)),
        description: file.description.clone(),
        source: path.to_owned(),
        text: text.to_owned(),
        overrides: overrides.to_vec(),
        arithmetic: arithmetic.words(file.seeds.len(), runs.len()),
        axes: expand::axes(&cells),
        runs,
        references,
        run: file.settings.run.clone(),
        report: file.settings.report.clone(),
        extended,
    })
}

fn too_many(file: &SweepFile, arithmetic: &Arithmetic, sources: &Sources) -> Fault {
    let factors = file.factors.iter().chain(file.blocks.iter().flat_map(|block| &block.factors));
    let places = factors.filter_map(|factor| {
        let n = factor.points.len();
        Some((factor.place()?.clone(), format!("{n} {}", if n == 1 { "value" } else { "values" })))
    });
    let most = file.settings.run.max_runs;
    sources.fault(
        format!(
            "too many runs: {}, but at most {most}",
            arithmetic.words(file.seeds.len(), arithmetic.cells.saturating_mul(file.seeds.len()))
        ),
        places.filter(|(_, words)| words != "1 value").collect(),
        Some("split the question, or raise `run.max_runs`".to_owned()),
    )
}

/// An exclusion that no cell meets.
fn idle(exclude: &Exclude, file: &SweepFile, sources: &Sources) -> Fault {
    let mut help = Vec::new();
    for (spec, values) in &exclude.keys {
        let mut on_axis: Vec<String> = Vec::new();
        for a in file.varying().chain(&file.base).filter(|a| a.key.key == spec.key) {
            let value = plain(&a.written.value);
            if !on_axis.contains(&value) {
                on_axis.push(value);
            }
        }
        let meant = |v: &Assignment| on_axis.contains(&plain(&v.written.value));
        match on_axis.as_slice() {
            [] => help.push(format!("`{}` is on no axis", spec.key)),
            there if !values.iter().any(meant) => help.push(format!("`{}` is {}", spec.key, super::value::either(there))),
            _ => {}
        }
    }
    if help.is_empty() {
        help.push("no cell has all of these values at once".to_owned());
    }
    let labels = vec![(exclude.place.clone(), "in no cell".to_owned())];
    sources.fault("this exclusion excludes nothing", labels, Some(help.join("\n")))
}

/// The runs of all cells. Faults that are already known keep silent what may only follow from them.
fn resolve_all(cells: &[Cell<'_>], file: &SweepFile, sources: &Sources, inspect: &Inspect<'_>, faults: &mut Vec<Fault>) -> Vec<GridRun> {
    let mut inspector = Inspector { inspect, known: Vec::new() };
    let mut told = HashSet::new();
    let (mut runs, mut ids) = (Vec::new(), HashSet::new());
    // These decide too much else.
    if file.lost.cells || file.lost.keys.iter().any(|key| key.starts_with("data.") || ["model.kind", "diffusion.kernel"].contains(key)) {
        return runs;
    }
    for cell in cells {
        let (config, info, wrong) = match resolve(cell, &mut inspector) {
            Ok((config, info)) => {
                let wrong = problems(&config, &info);
                (config, info, wrong)
            }
            Err(problem) => {
                report(&problem, cell, file, sources, &mut told, faults);
                continue;
            }
        };
        for problem in &wrong {
            report(problem, cell, file, sources, &mut told, faults);
        }
        if !faults.is_empty() {
            continue;
        }
        let axes = cell.axes();
        let own: Vec<&str> = cell.own().iter().map(|a| a.key.key).collect();
        for &seed in &file.seeds {
            let config = RunConfig { seed, ..config.clone() };
            let id = config.id();
            if ids.insert(id.clone()) {
                let (slug, axes, cell) = (config.slug(), axes.clone(), cell.name());
                runs.push(GridRun { id, slug, config, info: info.clone(), axes, cell, seed, own: own.clone(), picked: true });
            }
        }
    }
    runs
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
    let written = |key: &&str| cell.find(key);
    let unknown = |key: &&str| file.lost.keys.contains(key) || (file.lost.some && written(key).is_none());
    if problem.keys.iter().any(unknown) {
        return;
    }
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
    if expand::is_product(file, &problem.keys) {
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
