//! `report`: the comparison of a sweep, drawn; of several; while it goes on; or one figure of it.

use super::output::{complain, duration, print, stderr_colour};
use super::{CliError, StoreArgs, exit};
use crate::report::live::{self, Look};
use crate::report::single::{Format, Width};
use crate::report::{self, Options, ReportError, Study, Summary, single};
use crate::store::{ResultsStore, fs};
use crate::sweep::{StopReason, StopRequest};
use std::path::PathBuf;
use std::time::Instant;

#[derive(clap::Args)]
pub struct ReportArgs {
    /// Sweeps to report on: of several, one page compares them. Default: every sweep in the store, a page each.
    names: Vec<String>,
    #[command(flatten)]
    store: StoreArgs,
    /// Draw again whenever the runs have got on; the page loads itself again. Ends with the runs, or with Ctrl-C.
    #[arg(long, conflicts_with = "figure")]
    live: bool,
    /// Write one figure alone, by the name of its files: `bits_per_dim`.
    #[arg(long, value_name = "NAME")]
    figure: Option<String>,
    /// svg, png or csv.
    #[arg(long, requires = "figure", default_value = "svg")]
    format: Format,
    /// Width in print (85mm, 170mm, 5.5in; PNG at 300 dots to the inch) or on a screen (640px). The figure is laid out for it,
    /// with text of 6 pt and more; below 62mm, where it would be smaller than 5 pt, is refused.
    #[arg(long, requires = "figure", value_name = "WIDTH")]
    width: Option<Width>,
    /// Where the figure goes; `-` is the standard output. Default: NAME.FORMAT in this folder.
    #[arg(long, short, requires = "figure", value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn report(args: &ReportArgs) -> Result<i32, CliError> {
    let store = args.store.existing()?;
    let known = store.sweeps()?;
    if known.is_empty() && args.names.is_empty() {
        return Err(CliError::NothingMatched {
            message: format!("there is no sweep in {}", store.root().display()),
            help: Some("`ddpm-lab sweep FILE` makes one".to_owned()),
        });
    }
    if let Some(name) = &args.figure {
        return figure(args, &store, name, &known);
    }
    // A page for each where none is named, one for all that are.
    let pages: Vec<Vec<String>> =
        if args.names.is_empty() { known.into_iter().map(|n| vec![n]).collect() } else { vec![args.names.clone()] };
    if args.live {
        return follow(&store, &pages);
    }
    // One sweep that cannot be drawn hides no other.
    let mut first_error = None;
    for names in &pages {
        if let Err(error) = page(&store, names, None).map(|said| print(&said)) {
            complain(&error.render(stderr_colour()));
            first_error.get_or_insert(error.exit_code());
        }
    }
    Ok(first_error.unwrap_or(exit::DONE))
}

/// Draws the page of one sweep, or of several together, and says what it says.
pub fn page(store: &ResultsStore, names: &[String], live: Option<u32>) -> Result<String, CliError> {
    let started = Instant::now();
    let summary = draw(store, names, live)?;
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
    Ok(text)
}

fn draw(store: &ResultsStore, names: &[String], live: Option<u32>) -> Result<Summary, CliError> {
    let data = report::load_compared(store, names)?;
    let folder = store.root().join("reports").join(report::merge::joined(names));
    Ok(report::build(&data, &folder, &Options { live, ..Options::default() })?)
}

/// Draws until every run has ended, or a signal comes.
fn follow(store: &ResultsStore, pages: &[Vec<String>]) -> Result<i32, CliError> {
    let stop = StopRequest::from_signals().map_err(|e| CliError::Internal(format!("signals cannot be caught: {e}")))?;
    let all: Vec<String> = pages.iter().flatten().cloned().collect();
    // A name that is unknown is an error before anything is waited for.
    Look::at(store, &all)?;
    for names in pages {
        let index = store.root().join("reports").join(report::merge::joined(names)).join("index.html");
        print(&format!("{}: drawn again as the runs get on; Ctrl-C ends it\n", index.display()));
    }
    follow_until(store, pages, &|| stop.requested().is_some(), &mut |said| print(said))?;
    Ok(stop.requested().map_or(exit::DONE, |signal| i32::from(StopReason::Signal(signal).exit_code())))
}

/// [`live::follow`] for pages; the last drawing of each is told.
pub fn follow_until(
    store: &ResultsStore,
    pages: &[Vec<String>],
    stop: &dyn Fn() -> bool,
    say: &mut dyn FnMut(&str),
) -> Result<(), CliError> {
    let all: Vec<String> = pages.iter().flatten().cloned().collect();
    let mut drawn: Vec<Option<Look>> = vec![None; pages.len()];
    let draw = |live: bool| -> Result<(), CliError> {
        for (names, drawn) in pages.iter().zip(&mut drawn) {
            if !live {
                say(&page(store, names, None)?);
                continue;
            }
            // Of several pages those that have changed.
            let now = Look::at(store, names)?;
            if drawn.as_ref() != Some(&now) {
                draw(store, names, (!now.ended()).then_some(live::RELOAD_SECONDS))?;
                *drawn = Some(now);
            }
        }
        Ok(())
    };
    let told = |error: CliError| complain(&error.render(stderr_colour()));
    live::follow(live::EVERY, || Look::at(store, &all), draw, stop, told)
}

fn figure(args: &ReportArgs, store: &ResultsStore, name: &str, known: &[String]) -> Result<i32, CliError> {
    let names = match (args.names.as_slice(), known) {
        ([], [one]) => vec![one.clone()],
        ([], _) => {
            return Err(CliError::input(
                "of which sweep?",
                format!("name one of {}: ddpm-lab report NAME --figure {name}", known.join(", ")),
            ));
        }
        (names, _) => names.to_vec(),
    };
    let data = report::load_compared(store, &names)?;
    let bytes = single::render(&Study::new(&data), name, args.format, args.width)?;
    let path = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.{}", args.format)));
    if path.as_os_str() == "-" {
        super::output::print_bytes(&bytes);
    } else {
        fs::write_atomic(&path, &bytes)?;
        print(&format!("{}\n", path.display()));
    }
    Ok(exit::DONE)
}

impl From<ReportError> for CliError {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::Store(error) => error.into(),
            ReportError::NoFigure { ref known, .. } => {
                let help = format!("it is one of {}", known.join(", "));
                Self::input(&error, help)
            }
            ReportError::TooNarrow { ref least, .. } => {
                let help = format!("it can be read from {least} on");
                Self::input(&error, help)
            }
            ReportError::NotDrawn { .. } => Self::input(error, "the figures that are drawn are on the report's page"),
            other => Self::Internal(other.to_string()),
        }
    }
}
