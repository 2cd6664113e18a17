//! `report`: the comparison of a sweep, drawn.

use super::output::{duration, print};
use super::{CliError, StoreArgs, exit};
use crate::report::{self, ReportError};
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
    for name in &names {
        let started = Instant::now();
        let data = report::load(&store, name)?;
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
    }
    Ok(exit::DONE)
}

impl From<ReportError> for CliError {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::Store(error) => error.into(),
            other => Self::Internal(other.to_string()),
        }
    }
}
