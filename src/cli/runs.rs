//! `ls` and `show`: what is in the store.

use super::output::{Table, duration, print, short, width};
use super::{CliError, StoreArgs, exit};
use crate::config::StoredConfig;
use crate::config::keys::{self, KeySpec};
use crate::config::{RunConfig, stored, value};
use crate::named::NamedEnum;
use crate::record::{CASE, Evaluation, Split};
use crate::store::{DAMAGED, Listed, Manifest, Provenance, ResultsStore, RunDir, RunState, list};
use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value, json};
use std::cmp::Ordering;
use std::collections::HashMap;

#[derive(clap::Args)]
pub struct LsArgs {
    /// Only runs with these values: `schedule=cosine`, `train.lr=1e-3,1e-4`. Given several times, all must hold.
    #[arg(value_name = "KEY=VALUE")]
    only: Vec<String>,
    #[command(flatten)]
    store: StoreArgs,
    /// Only runs in one of these states.
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = state_names())]
    state: Vec<String>,
    /// Only runs of this sweep.
    #[arg(long)]
    sweep: Option<String>,
    /// In the order of this column or key of the configuration, least first: bits_per_dim, eps_mse, swd, seconds, step, state,
    /// schedule, train.lr, … Runs without it come last. Default: the order of the sweep, or of the folders.
    #[arg(long, value_name = "COLUMN")]
    sort: Option<String>,
    /// Greatest first.
    #[arg(long, requires = "sort")]
    reverse: bool,
    /// At most so many runs.
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<usize>,
    /// One JSON object per line, with the whole configuration.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub struct ShowArgs {
    /// A run id, a unique prefix of one, a run folder, or `latest`.
    run: String,
    #[command(flatten)]
    store: StoreArgs,
    /// One JSON object: what run.json says, with the state, the configuration and every evaluation.
    #[arg(long)]
    json: bool,
}

fn state_names() -> PossibleValuesParser {
    PossibleValuesParser::new(RunState::names().into_iter().chain([DAMAGED]))
}

/// The evaluation that a run is judged by: the final one on test, else the last on val.
pub fn final_evaluation(manifest: &Manifest) -> Option<&Evaluation> {
    let of = |split| manifest.evaluations.iter().rev().find(move |e| e.split == split);
    of(Split::Test).or_else(|| of(Split::Val))
}

/// `3.1234 ± 0.0321`.
pub fn bits(evaluation: &Evaluation) -> String {
    format!("{:.4} ± {:.4}", evaluation.bits_per_dim, evaluation.bits_per_dim_se)
}

pub fn ls(args: &LsArgs) -> Result<i32, CliError> {
    let filters = stored::filters(&args.only)?;
    let by = args.sort.as_deref().map(Column::named).transpose()?;
    let store = args.store.existing()?;
    let dirs: Vec<RunDir> = match &args.sweep {
        None => store.runs()?,
        Some(name) => {
            let by_id = store.runs_by_id()?;
            store.read_sweep(name)?.runs.iter().filter_map(|r| by_id.get(&r.run_id).cloned()).collect()
        }
    };
    let mut runs = list(&dirs);
    runs.retain(|run| args.state.is_empty() || args.state.iter().any(|state| state == run.state_name()));
    runs.retain(|run| filters.iter().all(|f| run.config.as_ref().is_some_and(|config| f.meets(config))));
    if runs.is_empty() {
        return Err(CliError::NothingMatched {
            message: format!("no run in {} matches", store.root().display()),
            help: Some("`ddpm-lab ls` without a filter lists all runs".to_owned()),
        });
    }
    if let Some(by) = by {
        let mut keyed: Vec<(Option<SortKey>, Listed)> = runs.into_iter().map(|run| (by.of(&run), run)).collect();
        keyed.sort_by(|(a, _), (b, _)| match (a, b) {
            // Whatever the order, runs without a value come last.
            (Some(a), Some(b)) if args.reverse => b.compare(a),
            (Some(a), Some(b)) => a.compare(b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
        runs = keyed.into_iter().map(|(_, run)| run).collect();
    }
    runs.truncate(args.limit.unwrap_or(usize::MAX));
    let cells = Cells::of(&store, args.sweep.as_deref())?;
    let text = if args.json {
        runs.iter().map(|run| format!("{}\n", Value::Object(object(run, &cells)))).collect()
    } else {
        table(&runs, &cells, width())
    };
    print(&text);
    Ok(exit::DONE)
}

/// What a run is to be sorted by.
enum Column {
    RunId,
    Slug,
    State,
    Step,
    Seconds,
    BitsPerDim,
    EpsMse,
    Swd,
    Key(&'static KeySpec<RunConfig>),
}

enum SortKey {
    Number(f64),
    Text(String),
}

impl SortKey {
    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.total_cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Number(_), Self::Text(_)) => Ordering::Less,
            (Self::Text(_), Self::Number(_)) => Ordering::Greater,
        }
    }
}

impl Column {
    const NAMES: [&str; 8] = ["run_id", "slug", "state", "step", "seconds", "bits_per_dim", "eps_mse", "swd"];

    fn named(name: &str) -> Result<Self, CliError> {
        Ok(match name {
            "run_id" | "run" | "id" => Self::RunId,
            "slug" => Self::Slug,
            "state" => Self::State,
            "step" => Self::Step,
            "seconds" | "time" => Self::Seconds,
            "bits_per_dim" | "bits" => Self::BitsPerDim,
            "eps_mse" => Self::EpsMse,
            "swd" | "SWD" => Self::Swd,
            key => match stored::key_named(key) {
                Some(spec) => Self::Key(spec),
                None => {
                    let help = format!("--sort takes {}, or a key of the configuration; {}", Self::NAMES.join(", "), stored::help_for(key));
                    return Err(CliError::input(format!("there is no column `{key}`"), help));
                }
            },
        })
    }

    /// `None` where the run has no such value, or none that is a number.
    fn of(&self, run: &Listed) -> Option<SortKey> {
        let manifest = run.manifest.as_ref();
        let evaluation = || manifest.and_then(final_evaluation);
        let number = match self {
            Self::RunId => return Some(SortKey::Text(run.dir.id().to_owned())),
            Self::Slug => return Some(SortKey::Text(run.dir.slug().to_owned())),
            Self::State => return Some(SortKey::Text(run.state_name().to_owned())),
            Self::Key(spec) => {
                let value = run.config.as_ref()?.get(spec)?;
                return Some(match value.as_float().or_else(|| value.as_integer().map(|i| i as f64)) {
                    Some(number) => SortKey::Number(number),
                    None => SortKey::Text(value::plain(value)),
                });
            }
            Self::Step => f64::from(manifest?.step),
            Self::Seconds => manifest?.volatile.seconds,
            Self::BitsPerDim => evaluation()?.bits_per_dim,
            Self::EpsMse => evaluation()?.eps_mse,
            Self::Swd => evaluation()?.samples.as_ref()?.sliced_wasserstein,
        };
        (!number.is_nan()).then_some(SortKey::Number(number))
    }
}

/// The line of a run, for machines.
fn object(run: &Listed, cells: &Cells) -> Map<String, Value> {
    let manifest = run.manifest.as_ref();
    let fields = json!({
        "run_id": run.dir.id(), "slug": run.dir.slug(), "cell": cells.name(run), "state": run.state_name(), "note": run.problem,
        "step": manifest.map(|m| m.step), "steps": manifest.map(|m| m.steps), "reason": manifest.and_then(|m| m.reason.clone()),
        "evaluation": manifest.and_then(final_evaluation), "seconds": manifest.map(|m| m.volatile.seconds),
        "config": run.config.as_ref().map(values),
    });
    match fields {
        Value::Object(map) => map,
        other => Map::from_iter([("run".to_owned(), other)]),
    }
}

/// A configuration by its full keys.
fn values(config: &StoredConfig) -> Map<String, Value> {
    config.entries().map(|(spec, value)| (spec.key.to_owned(), json!(value))).collect()
}

/// A line for each run: what tells it from the others, and what came of it. The keys in which the runs differ have columns where
/// they fit into `width`; where they do not, the run's name stands for them. Time and distance of the samples come last, as
/// far as there is room.
fn table(runs: &[Listed], cells: &Cells, width: usize) -> String {
    let configs: Vec<&StoredConfig> = runs.iter().filter_map(|run| run.config.as_ref()).collect();
    let columns = |specs: &[&'static KeySpec<RunConfig>]| -> Vec<(String, Vec<String>)> {
        let of =
            |spec: &KeySpec<RunConfig>, run: &Listed| or_dash(run.config.as_ref().and_then(|c| Some(brief(&value::plain(c.get(spec)?)))));
        specs.iter().map(|spec| (keys::label(spec).to_owned(), runs.iter().map(|run| of(spec, run)).collect())).collect()
    };
    let evaluation = |run: &Listed| run.manifest.as_ref().and_then(final_evaluation).cloned();
    let results: Vec<Option<Evaluation>> = runs.iter().map(evaluation).collect();
    let bits = |e: &Evaluation| if e.split == Split::Test { bits(e) } else { format!("{} ({})", bits(e), e.split) };
    let mut first = vec![
        ("run".to_owned(), runs.iter().map(|run| run.dir.id().to_owned()).collect()),
        ("state".to_owned(), runs.iter().map(state).collect()),
    ];
    let case = runs.iter().map(|run| cells.case(run)).collect::<Vec<_>>();
    if case.iter().any(Option::is_some) {
        first.push(("case".to_owned(), case.into_iter().map(or_dash).collect()));
    }
    let score = (">bits/dim ± s.e.".to_owned(), results.iter().map(|e| or_dash(e.as_ref().map(bits))).collect::<Vec<_>>());
    let seconds = |run: &Listed| run.manifest.as_ref().map(|m| duration(m.volatile.seconds));
    let distance = |e: &Option<Evaluation>| Some(format!("{:.4}", e.as_ref()?.samples.as_ref()?.sliced_wasserstein));
    let more = [
        (">time".to_owned(), runs.iter().map(|run| or_dash(seconds(run))).collect::<Vec<_>>()),
        (">SWD".to_owned(), results.iter().map(|e| or_dash(distance(e))).collect()),
    ];
    let told = columns(&stored::differing(&configs));
    let any_told = !told.is_empty() || first.len() > 2;
    let keyed: Vec<_> = first.iter().cloned().chain(told).chain([score.clone()]).collect();
    let mut chosen = if any_told && room(&keyed) <= width {
        keyed
    } else {
        let name = |run: &Listed| run.dir.slug().to_owned();
        first.into_iter().chain([score, ("configuration".to_owned(), runs.iter().map(name).collect())]).collect()
    };
    for column in more.into_iter().filter(|(_, cells)| cells.iter().any(|cell| cell != NONE)) {
        if room(&chosen) + 2 + room(std::slice::from_ref(&column)) <= width {
            // The name of a run may be cut, so it stays last.
            let at = if chosen.last().is_some_and(|(head, _)| head == "configuration") { chosen.len() - 1 } else { chosen.len() };
            chosen.insert(at, column);
        }
    }
    let heads: Vec<&str> = chosen.iter().map(|(head, _)| head.as_str()).collect();
    let mut table = Table::new(&heads);
    (0..runs.len()).for_each(|i| table.row(chosen.iter().map(|(_, cells)| cells[i].clone()).collect()));
    table.render("")
}

/// Characters of the widest line of these columns.
fn room(columns: &[(String, Vec<String>)]) -> usize {
    let of = |(head, cells): &(String, Vec<String>)| {
        cells.iter().map(|c| c.chars().count()).chain([head.trim_start_matches('>').chars().count()]).max().unwrap_or(0)
    };
    columns.iter().map(of).sum::<usize>() + 2 * columns.len().saturating_sub(1)
}

const NONE: &str = "–";

fn or_dash(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| NONE.to_owned())
}

/// A value in a column: long numbers by four digits.
fn brief(value: &str) -> String {
    match value.parse::<f64>() {
        Ok(number) if value.len() > 8 => short(number),
        _ => value.to_owned(),
    }
}

/// `done`, or how far a run is that is not.
fn state(run: &Listed) -> String {
    let name = run.state_name();
    match (run.state, &run.manifest) {
        (Some(RunState::Done) | None, _) | (_, None) => name.to_owned(),
        (Some(RunState::Diverged), Some(m)) => m.first_nonfinite_step.map_or(name.to_owned(), |step| format!("{name} at {step}")),
        (_, Some(m)) => format!("{name} {}/{}", m.step, m.steps),
    }
}

/// What the cells of runs are called, by the runs' ids: in one sweep, or in the first that contains them.
struct Cells(HashMap<String, (String, Option<String>)>);

impl Cells {
    fn of(store: &ResultsStore, sweep: Option<&str>) -> Result<Self, CliError> {
        let names = match sweep {
            Some(name) => vec![name.to_owned()],
            None => store.sweeps()?,
        };
        let mut cells = HashMap::new();
        for name in names {
            // One damaged record hides no other; its own sweep's report says what is wrong with it.
            let record = match store.read_sweep(&name) {
                Ok(record) => record,
                Err(error) if sweep.is_none() && error.is_of_contents() => continue,
                Err(error) => return Err(error.into()),
            };
            for run in record.runs.into_iter().filter(|run| !run.cell.is_empty()) {
                let case = run.axes.into_iter().find(|(key, _)| key == CASE).map(|(_, name)| name);
                cells.entry(run.run_id).or_insert((run.cell, case));
            }
        }
        Ok(Self(cells))
    }

    /// A run that only a sweep without axes contains has no name.
    fn name(&self, run: &Listed) -> Option<&str> {
        self.0.get(run.dir.id()).map(|(cell, _)| cell.as_str())
    }

    fn case(&self, run: &Listed) -> Option<String> {
        self.0.get(run.dir.id())?.1.clone()
    }
}

pub fn show(args: &ShowArgs) -> Result<i32, CliError> {
    let store = args.store.existing()?;
    let run = store.find(&args.run)?;
    let listed = Listed::of(&run);
    if args.json {
        let manifest = run.manifest()?;
        let mut object = match serde_json::to_value(&manifest).map_err(|e| CliError::Internal(e.to_string()))? {
            Value::Object(map) => map,
            _ => Map::from_iter([("run_id".to_owned(), json!(run.id())), ("slug".to_owned(), json!(run.slug()))]),
        };
        object.insert("state".to_owned(), json!(listed.state_name()));
        object.insert("path".to_owned(), json!(run.path()));
        object.insert("config".to_owned(), json!(listed.config.as_ref().map(values)));
        object.insert("metrics".to_owned(), json!(run.read_evaluations()?));
        let text = serde_json::to_string_pretty(&object).map_err(|e| CliError::Internal(e.to_string()))?;
        print(&(text + "\n"));
        return Ok(exit::DONE);
    }
    let manifest = run.manifest()?;
    let mut text = format!("{}  {}\n{}\n", run.id(), run.slug(), run.path().display());
    text += &format!("state: {}", listed.state_name());
    if let Some(m) = &manifest {
        text += &format!(", step {} of {}, {} parameters\n", m.step, m.steps, m.parameters);
        if let Some(reason) = &m.reason {
            text += &format!("reason: {reason}\n");
        }
        text += &provenance(&store, &m.provenance);
        text += &format!("in {} over {}\n", duration(m.volatile.seconds), many(u64::from(m.volatile.attempts), "attempt"));
    } else {
        text.push('\n');
    }
    let evaluations = run.read_evaluations()?;
    if !evaluations.is_empty() {
        let mut table = Table::new(&["split", ">step", ">bits/dim ± s.e.", ">decoder", ">KL", ">prior", ">eps-MSE", ">images", ">t"]);
        for e in &evaluations {
            table.row(vec![
                e.split.to_string(),
                e.step.to_string(),
                bits(e),
                format!("{:.4}", e.decoder),
                format!("{:.4}", e.kl),
                format!("{:.1e}", e.prior),
                format!("{:.4}", e.eps_mse),
                e.images.to_string(),
                e.timesteps.to_string(),
            ]);
        }
        text += &format!("\n{}", table.render("  "));
    }
    if let Some(e) = manifest.as_ref().and_then(final_evaluation) {
        if let Some(floor) = &e.floor {
            text += &format!(
                "\n  The exact denoiser of this data has {:.4} bits/dim on the same draws: {:.4} ± {:.4} are left to gain.\n",
                floor.bits_per_dim,
                e.bits_per_dim - floor.bits_per_dim,
                floor.excess_se
            );
        }
        if let Some(q) = &e.samples {
            text += &format!(
                "\n  {} samples against {} test examples: sliced Wasserstein {:.4} ± {:.4} (as many training examples: {:.4}), MMD² {:.5} ± {:.5}\n",
                q.samples, q.data, q.sliced_wasserstein, q.sliced_wasserstein_se, q.sliced_wasserstein_of_data, q.mmd2, q.mmd2_se
            );
        }
    }
    text += &format!("\n{}", run.config_text()?);
    print(&text);
    Ok(exit::DONE)
}

/// Where a run's numbers came from, a line for each thing that is known.
fn provenance(store: &ResultsStore, p: &Provenance) -> String {
    let device = match &p.device_name {
        Some(name) => format!("{} ({name})", p.device),
        None => p.device.clone(),
    };
    let driver = p.driver.as_ref().map(|driver| format!(", driver {driver}")).unwrap_or_default();
    let mut text =
        format!("made by ddpm-lab {} on {device}{driver}, {}, {}\n", p.version, p.instruction_set, many(p.threads as u64, "thread"));
    if let Some(build) = &p.build {
        let features = if build.features.is_empty() { String::new() } else { format!(", with {}", build.features.join(", ")) };
        let revision = build.revision.as_deref().map_or("sources outside git".to_owned(), |r| format!("sources at {}", revision(r)));
        text += &format!("  built from {revision}{features}; Cargo.lock {}\n", &build.lock[..build.lock.len().min(12)]);
    }
    let here = p.git_revision.as_deref().map_or("no git revision".to_owned(), revision);
    text += &match (&p.patch, p.git_dirty) {
        (Some(patch), _) => format!("  run in a working folder at {here}, changed by {}\n", store.patch_path(patch).display()),
        (None, Some(true)) => format!("  run in a working folder at {here}, with uncommitted changes\n"),
        (None, _) => format!("  run in a working folder at {here}\n"),
    };
    if !p.untracked.is_empty() {
        text += &format!("  files there that git did not know: {}\n", p.untracked.join(", "));
    }
    if let Some(data) = &p.data {
        text += &format!("  data {}\n", &data[..data.len().min(12)]);
    }
    if !p.command.is_empty() {
        text += &format!("  by: {}\n", p.command.join(" "));
    }
    text
}

/// A revision by its first 12 digits, with what tells how the sources differed from it.
pub fn revision(full: &str) -> String {
    match full.split_once('+') {
        Some((revision, patch)) => format!("{}+{}", &revision[..revision.len().min(12)], &patch[..patch.len().min(8)]),
        None => full[..full.len().min(12)].to_owned(),
    }
}

/// `1 run`, `3 runs`.
pub fn many(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
