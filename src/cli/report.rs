//! `report`: the comparison of a sweep, drawn.

use super::output::{complain, duration, print, stderr_colour};
use super::{CliError, StoreArgs, exit};
use crate::report::{self, ReportError};
use crate::store::ResultsStore;
use std::time::Instant;

#[derive(clap::Args)]
pub struct ReportArgs {
    /// Sweeps to report on; default: every sweep in the store.
    names: Vec<String>,
    #[command(flatten)]
    store: StoreArgs,
}

pub fn report(args: &ReportArgs) -> Result<i32, CliError> {
    let store = args.store.existing()?;
    let names = if args.names.is_empty() { store.sweeps()? } else { args.names.clone() };
    if names.is_empty() {
        return Err(CliError::NothingMatched {
            message: format!("there is no sweep in {}", store.root().display()),
            help: Some("`ddpm-lab sweep FILE` makes one".to_owned()),
        });
    }
    // One sweep that cannot be drawn hides no other.
    let mut first_error = None;
    for name in &names {
        if let Err(error) = one(&store, name) {
            complain(&error.render(stderr_colour()));
            first_error.get_or_insert(error.exit_code());
        }
    }
    Ok(first_error.unwrap_or(exit::DONE))
}

fn one(store: &ResultsStore, name: &str) -> Result<(), CliError> {
    let started = Instant::now();
    let data = report::load(store, name)?;
    let folder = store.root().join("reports").join(name);
    let summary = report::build(&data, &folder, &report::Options::default())?;
    let mut text = format!(
        "{}: {} of {} runs finished, {} figures, {}\n",
        summary.index.display(),
        summary.finished,
        summary.runs,
        summary.figures.len(),
        duration(started.elapsed().as_secs_f64())
    );
    for sentence in &summary.sentences {
        text += &format!("  {sentence}\n");
    }
    for (figure, reason) in &summary.skipped {
        text += &format!("  not drawn: {figure} ({reason})\n");
    }
    print(&text);
    Ok(())
}

impl From<ReportError> for CliError {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::Store(error) => error.into(),
            other => Self::Internal(other.to_string()),
        }
    }
}
