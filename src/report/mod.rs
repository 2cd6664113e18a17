//! The report of a sweep: an offline page that answers the sweep's question, with figures and the numbers behind them.
//!
//! Start at [`load`] and [`build`]. [`SweepData`] is what the store knows, [`Study`] orders it into cells of seeds, [`Answer`]
//! compares them, [`figures`] draws, [`page`] writes the HTML. Statistics are in [`stats`], words and numbers in [`text`].
//! Several sweeps become one by [`merge`]; [`live`] draws again while runs go on; [`single`] is one figure for a paper.
//!
//! Deliberately absent: starting or changing runs; clock, host and absolute paths in the output (one store gives one
//! report, byte for byte); scripts that the page needs to be whole; smoothing.

pub mod compare;
pub mod draw;
pub mod excess;
pub mod figures;
pub mod history;
pub mod input;
pub mod live;
pub mod load;
pub mod merge;
pub mod page;
pub mod pairing;
pub mod reproduce;
pub mod settings;
pub mod sheet;
pub mod single;
pub mod stats;
pub mod study;
#[cfg(test)]
pub(crate) mod synthetic;
pub mod tables;
pub mod text;
pub mod theme;
pub mod trouble;
pub mod warnings;
pub mod where_in_t;

pub use compare::Answer;
pub use figures::{Drawn, Figure};
pub use input::{ForwardExamples, RunData, SweepData};
pub use load::load;
pub use merge::load_compared;
pub use study::Study;

use crate::store::StoreError;
use crate::store::fs::{create_dir_all, is_file, list, remove, write_if_changed};
use rayon::prelude::*;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("run {run_id} has not begun, and its configuration cannot be found out: {message}")]
    Configuration { run_id: String, message: String },
    #[error("cannot draw the figure {figure}: {source}")]
    Raster { figure: String, source: draw::raster::RasterError },
    #[error("schedule {schedule} with T = {timesteps} cannot be drawn: {message}")]
    Schedule { schedule: String, timesteps: u32, message: String },
    #[error("the sweep {0} has no runs")]
    Empty(String),
    #[error("there is no figure `{name}`")]
    NoFigure { name: String, known: Vec<String> },
    #[error("text of the figure {name} would be {points:.1} pt high at this width")]
    TooNarrow { name: String, points: f64, least: String },
    #[error("the figure {name} cannot be drawn: {reason}")]
    NotDrawn { name: String, reason: String },
}

#[derive(Clone, Debug)]
pub struct Options {
    /// Pixels of a PNG to the unit of a figure, which is 960 units wide.
    pub png_scale: f64,
    /// Runs go on: the page loads itself again every so many seconds.
    pub live: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self { png_scale: 2.0, live: None }
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    pub index: PathBuf,
    pub figures: Vec<String>,
    /// Figures that could not be drawn, with the reason.
    pub skipped: Vec<(String, String)>,
    pub runs: usize,
    /// Runs with a final result.
    pub finished: usize,
    /// What the report says first.
    pub sentences: Vec<String>,
}

/// Writes `index.html` and `figures/` into `out_dir`; each file appears whole or not at all. Files that an earlier report wrote
/// for figures which are not drawn any more go; files of anybody else stay.
///
/// # Errors
/// If the sweep has no runs, a figure cannot be drawn, or a file cannot be written.
pub fn build(data: &SweepData, out_dir: &Path, options: &Options) -> Result<Summary, ReportError> {
    if data.runs.is_empty() {
        return Err(ReportError::Empty(data.record.name.clone()));
    }
    let mut study = Study::new(data);
    let answer = Answer::of(&study);
    let drawn = figures::draw_all(&study)?;
    let folder = out_dir.join("figures");
    create_dir_all(&folder)?;
    let mut written: Vec<Vec<String>> = drawn.par_iter().map(|d| write_figure(d, &folder, options)).collect::<Result<_, _>>()?;
    // The same for narrow screens: the page names both, and a browser takes what fits.
    study.width = figures::NARROW;
    written.extend(figures::draw_all(&study)?.par_iter().map(|d| write_narrow(d, &folder)).collect::<Result<Vec<_>, _>>()?);
    remove_stale(&folder, &drawn, &written.concat())?;
    let index = out_dir.join("index.html");
    let html = match options.live {
        None => page::render(&study, &answer, &drawn),
        Some(seconds) => page::render_live(&study, &answer, &drawn, seconds),
    };
    write_if_changed(&index, html.as_bytes())?;
    let mut summary = Summary {
        index,
        figures: Vec::new(),
        skipped: Vec::new(),
        runs: data.runs.len(),
        finished: study.cells.iter().map(|c| c.finished().count()).sum(),
        sentences: answer.sentences.clone(),
    };
    for d in drawn {
        match d {
            Drawn::Figure(figure) => summary.figures.push(figure.name),
            Drawn::Skipped { name, reason } => summary.skipped.push((name, reason)),
        }
    }
    Ok(summary)
}

/// The names of the files.
fn write_figure(drawn: &Drawn, folder: &Path, options: &Options) -> Result<Vec<String>, ReportError> {
    let Drawn::Figure(figure) = drawn else { return Ok(Vec::new()) };
    let png = draw::raster::render(&figure.scene, options.png_scale)
        .map_err(|source| ReportError::Raster { figure: figure.name.clone(), source })?;
    let svg = draw::svg::render(&figure.scene, &figure.title, &figure.caption);
    let own = [("png", png.as_slice()), ("svg", svg.as_bytes()), ("csv", figure.csv.as_bytes())];
    let mut files: Vec<(String, &[u8])> = own.map(|(ending, bytes)| (format!("{}.{ending}", figure.name), bytes)).into();
    files.extend(figure.more_csv.iter().map(|(stem, csv)| (format!("{stem}.csv"), csv.as_bytes())));
    files.into_iter().map(|(name, bytes)| write_if_changed(&folder.join(&name), bytes).map(|_| name).map_err(Into::into)).collect()
}

fn write_narrow(drawn: &Drawn, folder: &Path) -> Result<Vec<String>, ReportError> {
    let Drawn::Figure(figure) = drawn else { return Ok(Vec::new()) };
    let name = figure.narrow_file();
    write_if_changed(&folder.join(&name), draw::svg::render(&figure.scene, &figure.title, &figure.caption).as_bytes())?;
    Ok(vec![name])
}

/// Removes the files of figures that an earlier report drew and this one does not.
fn remove_stale(folder: &Path, drawn: &[Drawn], written: &[String]) -> Result<(), ReportError> {
    for path in list(folder)? {
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
        if figures::may_write(name, drawn) && !written.iter().any(|w| w == name) && is_file(&path) {
            remove(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut all = BTreeMap::new();
        for entry in [folder.to_path_buf(), folder.join("figures")].iter().flat_map(|f| std::fs::read_dir(f).unwrap()) {
            let path = entry.unwrap().path();
            if path.is_file() {
                all.insert(path.strip_prefix(folder).unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap());
            }
        }
        all
    }

    #[test]
    fn the_same_sweep_gives_the_same_bytes_twice_and_every_link_leads_somewhere() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let data = synthetic::sweep();
        let summary = build(&data, a.path(), &Options { png_scale: 1.0, live: None }).unwrap();
        build(&data, b.path(), &Options { png_scale: 1.0, live: None }).unwrap();
        let (first, second) = (files(a.path()), files(b.path()));
        assert!(first == second);
        assert_eq!((summary.runs, summary.finished), (24, 24));
        for figure in &summary.figures {
            for ending in [".svg", ".png", ".csv", "_narrow.svg"] {
                assert!(first.contains_key(&format!("figures/{figure}{ending}")), "{figure}{ending}");
            }
        }
        assert!(!first.keys().any(|k| k.contains("partial")));
        let html = String::from_utf8(first["index.html"].clone()).unwrap();
        for link in html.split("=\"figures/").skip(1) {
            let name = link.split('"').next().unwrap();
            assert!(first.contains_key(&format!("figures/{name}")), "{name} is linked but not written");
        }
    }

    #[test]
    fn figures_that_are_drawn_no_more_leave_and_what_others_put_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut data = synthetic::numeric_sweep("train.lr", &["1e-5", "1e-4", "1e-3", "1e-2"]);
        let options = Options { png_scale: 0.5, live: None };
        build(&data, dir.path(), &options).unwrap();
        let before = files(dir.path());
        let folder = dir.path().join("figures");
        let others = ["mine.svg", "terms.pdf", "axis_.svg", "terms_old.svg", "notes"];
        for name in others {
            std::fs::write(folder.join(name), name).unwrap();
        }
        for run in &mut data.runs {
            run.run.axes.clear();
            run.evaluations.clear();
        }
        build(&data, dir.path(), &options).unwrap();
        let after = files(dir.path());
        for gone in ["axis_train_lr.svg", "axis_train_lr_narrow.svg", "terms.png", "terms.csv", "share_cumulative.csv"] {
            let name = format!("figures/{gone}");
            assert!(before.contains_key(&name) && !after.contains_key(&name), "{gone}");
        }
        assert!(
            others.iter().all(|name| after[&format!("figures/{name}")] == name.as_bytes()) && after.contains_key("figures/schedules.svg")
        );
        // Whatever a report writes is known to be its own.
        let mut written = before.keys().filter_map(|name| name.strip_prefix("figures/"));
        let drawn = figures::draw_all(&Study::new(&data)).unwrap();
        assert!(written.all(|name| figures::may_write(name, &drawn)));
    }

    #[test]
    fn a_sweep_without_runs_is_an_error() {
        let mut data = synthetic::sweep();
        data.runs.clear();
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(build(&data, dir.path(), &Options::default()), Err(ReportError::Empty(_))));
    }
}
