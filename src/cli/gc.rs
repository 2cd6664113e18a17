//! `gc`: what of the store nobody names any more. It says so, and deletes it where it is told to.

use super::output::{Table, print};
use super::runs::{bits, final_evaluation, many};
use super::{CliError, StoreArgs, exit, load_grid};
use crate::store::{Freed, Garbage, KEEP_FILE, Keep, ResultsStore, StoreError, fs};
use crate::units::bytes as size;
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct GcArgs {
    /// Experiment files whose runs stay, beside those under `experiments/` and every recorded sweep.
    files: Vec<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
    /// Where experiment files are looked for, in sub-folders too.
    #[arg(long, value_name = "DIR", default_value = "experiments")]
    experiments: PathBuf,
    /// An experiment file found there that keeps nothing.
    #[arg(long, value_name = "FILE")]
    skip: Vec<PathBuf>,
    /// A run that stays: an id, a unique prefix, a folder. `keep.txt` in the results folder names more, one a line.
    #[arg(long, value_name = "RUN")]
    keep: Vec<String>,
    /// Also the checkpoints of finished runs, but the last one of each, and but those of experiments with `run.keep`.
    #[arg(long)]
    checkpoints: bool,
    /// Delete it. Without this nothing is changed.
    #[arg(long)]
    yes: bool,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// An experiment file that does not expand, so that nobody knows what it names.
struct Silent {
    file: PathBuf,
    reason: String,
}

pub fn gc(args: &GcArgs) -> Result<i32, CliError> {
    let store = args.store.existing()?;
    let (keep, sources, silent) = named(args, &store)?;
    let garbage = store.garbage(&keep, args.checkpoints)?;
    if args.yes && !silent.is_empty() {
        let files: Vec<String> = silent.iter().map(|s| format!("{}: {}", s.file.display(), s.reason)).collect();
        let skips: Vec<String> = silent.iter().map(|s| format!("--skip {}", s.file.display())).collect();
        return Err(CliError::input(
            format!("nothing was deleted: what these experiments name cannot be known\n  {}", files.join("\n  ")),
            format!("mend them, or let go of what only they name: {}", skips.join(" ")),
        ));
    }
    let freed = if args.yes && !garbage.is_empty() {
        let freed = store.collect(&garbage)?;
        store.write_index()?;
        Some(freed)
    } else {
        None
    };
    let text = if args.json {
        let object = json!({
            "kept_by": sources, "kept": keep.runs.len(), "deleted": freed.is_some(), "bytes": garbage.bytes(),
            "runs": garbage.runs.iter().map(|r| json!({
                "run_id": r.run.dir.id(), "slug": r.run.dir.slug(), "state": r.run.state_name(), "bytes": r.bytes,
            })).collect::<Vec<_>>(),
            "checkpoints": garbage.checkpoints.iter().map(|c| json!({ "run_id": c.run.id(), "files": c.files, "bytes": c.bytes })).collect::<Vec<_>>(),
            "leftovers": garbage.leftovers.iter().map(|l| json!({ "path": l.path, "bytes": l.bytes })).collect::<Vec<_>>(),
            "held": garbage.held.iter().map(|run| run.id()).chain(freed.iter().flat_map(|f| f.held.iter().map(String::as_str))).collect::<Vec<_>>(),
            "not_expanded": silent.iter().map(|s| json!({ "file": s.file, "reason": s.reason })).collect::<Vec<_>>(),
        });
        format!("{object:#}\n")
    } else {
        words(&store, &garbage, freed.as_ref(), &sources, &silent)
    };
    print(&text);
    Ok(exit::DONE)
}

/// What stays, what says so, and the experiments that cannot say it.
fn named(args: &GcArgs, store: &ResultsStore) -> Result<(Keep, Vec<String>, Vec<Silent>), CliError> {
    let (mut keep, mut sources, mut silent) = (Keep::default(), Vec::new(), Vec::new());
    // A record that cannot be read may name anything: that is an error, not a sweep without runs.
    let sweeps = store.sweeps()?;
    for name in &sweeps {
        keep.runs.extend(store.read_sweep(name)?.runs.into_iter().map(|run| run.run_id));
    }
    if !sweeps.is_empty() {
        sources.push(many(sweeps.len() as u64, "recorded sweep"));
    }
    let found = experiments_in(&args.experiments)?;
    let skipped = |file: &Path| args.skip.iter().any(|skip| same_file(skip, file));
    if let Some(unknown) = args.skip.iter().find(|skip| !found.iter().any(|file| same_file(skip, file))) {
        let help = format!("--skip takes a file found under {}", args.experiments.display());
        return Err(CliError::input(format!("{} is no experiment that was found", unknown.display()), help));
    }
    let mut expanded = 0;
    for file in found.iter().filter(|file| !skipped(file)) {
        match load_grid(file, &[]) {
            Ok(grid) => {
                add(&mut keep, &grid);
                expanded += 1;
            }
            Err(CliError::Config(errors)) => {
                let reason = errors.faults().first().map(|f| f.message.clone()).unwrap_or_default();
                silent.push(Silent { file: file.clone(), reason });
            }
            Err(error) => return Err(error),
        }
    }
    // One that was named must expand.
    for file in &args.files {
        add(&mut keep, &load_grid(file, &[])?);
        expanded += 1;
    }
    if expanded > 0 {
        sources.push(many(expanded, "experiment file"));
    }
    let listed = kept_by_hand(store)?;
    for pattern in args.keep.iter().chain(&listed) {
        keep.runs.insert(store.find(pattern)?.id().to_owned());
    }
    if !args.keep.is_empty() || !listed.is_empty() {
        sources.push(format!("{} by hand", many((args.keep.len() + listed.len()) as u64, "run")));
    }
    Ok((keep, sources, silent))
}

fn add(keep: &mut Keep, grid: &crate::config::Grid) {
    let ids = grid.runs.iter().map(|run| run.id.0.clone());
    if grid.run.keep {
        keep.checkpoints.extend(ids.clone());
    }
    keep.runs.extend(ids);
}

/// The runs that `keep.txt` names: one a line, `#` begins a comment.
fn kept_by_hand(store: &ResultsStore) -> Result<Vec<String>, StoreError> {
    let path = store.root().join(KEEP_FILE);
    if !fs::is_file(&path) {
        return Ok(Vec::new());
    }
    let text = fs::read_text(&path)?;
    let names = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    Ok(names.filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

/// Every TOML file in and below `folder`.
fn experiments_in(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut files = Vec::new();
    for path in fs::list(folder)? {
        if fs::is_dir(&path) {
            files.extend(experiments_in(&path)?);
        } else if path.extension().is_some_and(|e| e == "toml") {
            files.push(path);
        }
    }
    Ok(files)
}

fn same_file(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Runs shown one by one before the rest is counted.
const MOST_SHOWN: usize = 50;

fn words(store: &ResultsStore, garbage: &Garbage, freed: Option<&Freed>, sources: &[String], silent: &[Silent]) -> String {
    let by = if sources.is_empty() { "nothing: no sweep is recorded and no experiment was found".to_owned() } else { sources.join(", ") };
    let mut text = format!("Kept: what is named by {by}.\n");
    for s in silent {
        text += &format!("  not known: what {} names ({})\n", s.file.display(), s.reason);
    }
    if !garbage.runs.is_empty() {
        let mut table = Table::new(&["run", "state", ">bits/dim ± s.e.", ">size", "configuration"]);
        for dead in garbage.runs.iter().take(MOST_SHOWN) {
            let result = dead.run.manifest.as_ref().and_then(final_evaluation);
            table.row(vec![
                dead.run.dir.id().to_owned(),
                dead.run.state_name().to_owned(),
                result.map_or_else(|| "–".to_owned(), bits),
                size(dead.bytes as f64),
                dead.run.dir.slug().to_owned(),
            ]);
        }
        text += &format!("\n{} that nobody names:\n{}", many(garbage.runs.len() as u64, "run"), table.render("  "));
        if garbage.runs.len() > MOST_SHOWN {
            text += &format!("  … {} more; --json has all\n", garbage.runs.len() - MOST_SHOWN);
        }
    }
    if !garbage.checkpoints.is_empty() {
        let files = garbage.checkpoints.iter().map(|c| c.files.len()).sum::<usize>() as u64;
        let bytes: u64 = garbage.checkpoints.iter().map(|c| c.bytes).sum();
        let runs = many(garbage.checkpoints.len() as u64, "finished run");
        text += &format!("\n{} of {runs}, {}; the last one of each stays.\n", many(files, "old checkpoint"), size(bytes as f64));
    }
    if !garbage.leftovers.is_empty() {
        let bytes: u64 = garbage.leftovers.iter().map(|l| l.bytes).sum();
        text += &format!(
            "\n{} of killed processes and deleted runs, {}.\n",
            many(garbage.leftovers.len() as u64, "leftover"),
            size(bytes as f64)
        );
    }
    for run in &garbage.held {
        text += &format!("\n{} is named by nobody, but somebody is running it: it stays.\n", run.id());
    }
    text += &match freed {
        _ if garbage.is_empty() => "\nNothing to delete.\n".to_owned(),
        None => format!(
            "\nThis would free {} in {}. Nothing was deleted; --yes does it.\n",
            size(garbage.bytes() as f64),
            store.root().display()
        ),
        Some(freed) => {
            let held = if freed.held.is_empty() {
                String::new()
            } else {
                format!(" Taken by somebody meanwhile, and left alone: {}.", freed.held.join(", "))
            };
            let what = [(freed.runs, "run"), (freed.checkpoints, "checkpoint"), (freed.leftovers, "leftover")];
            let parts: Vec<String> = what.iter().filter(|(n, _)| *n > 0).map(|(n, what)| many(*n as u64, what)).collect();
            format!("\nDeleted {}: {} are free.{held}\n", parts.join(", "), size(freed.bytes as f64))
        }
    };
    text
}
