//! The report of a sweep: an offline page that answers the sweep's question, with figures and the numbers behind them.
//!
//! Start at [`build`]. [`SweepData`] is what the store knows, [`Study`] orders it into cells of seeds, [`Answer`]
//! compares them, [`figures`] draws, [`page`] writes the HTML. Statistics are in [`stats`], words and numbers in [`text`].
//!
//! Deliberately absent: starting or changing runs; clock, host and absolute paths in the output (one store gives one
//! report, byte for byte); scripts; smoothing.

pub mod compare;
pub mod draw;
pub mod figures;
pub mod input;
pub mod page;
pub mod stats;
pub mod study;
#[cfg(test)]
pub(crate) mod synthetic;
pub mod tables;
pub mod text;
pub mod theme;
pub mod warnings;
pub mod where_in_t;

pub use compare::Answer;
pub use figures::{Drawn, Figure};
pub use input::{ForwardExamples, RunData, SweepData};
pub use study::Study;

use rayon::prelude::*;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot draw the figure {figure}: {source}")]
    Raster { figure: String, source: draw::raster::RasterError },
    #[error("schedule {schedule} with T = {timesteps} cannot be drawn: {message}")]
    Schedule { schedule: String, timesteps: u32, message: String },
    #[error("the sweep {0} has no runs")]
    Empty(String),
}

#[derive(Clone, Debug)]
pub struct Options {
    /// Pixels of a PNG to the unit of a figure, which is 960 units wide.
    pub png_scale: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { png_scale: 2.0 }
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

/// Writes `index.html` and `figures/` into `out_dir`; each file appears whole or not at all.
///
/// # Errors
/// If the sweep has no runs, a figure cannot be drawn, or a file cannot be written.
pub fn build(data: &SweepData, out_dir: &Path, options: &Options) -> Result<Summary, ReportError> {
    if data.runs.is_empty() {
        return Err(ReportError::Empty(data.record.name.clone()));
    }
    let study = Study::new(data);
    let answer = Answer::of(&study);
    let drawn = figures::draw_all(&study)?;
    let folder = out_dir.join("figures");
    std::fs::create_dir_all(&folder).map_err(|source| ReportError::Write { path: folder.clone(), source })?;
    drawn.par_iter().try_for_each(|d| match d {
        Drawn::Figure(figure) => write_figure(figure, &folder, options),
        Drawn::Skipped { .. } => Ok(()),
    })?;
    let index = out_dir.join("index.html");
    write_whole(&index, page::render(&study, &answer, &drawn).as_bytes())?;
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

fn write_figure(figure: &Figure, folder: &Path, options: &Options) -> Result<(), ReportError> {
    let png = draw::raster::render(&figure.scene, options.png_scale)
        .map_err(|source| ReportError::Raster { figure: figure.name.clone(), source })?;
    let svg = draw::svg::render(&figure.scene, &figure.title, &figure.caption);
    write_whole(&folder.join(format!("{}.png", figure.name)), &png)?;
    write_whole(&folder.join(format!("{}.svg", figure.name)), svg.as_bytes())?;
    write_whole(&folder.join(format!("{}.csv", figure.name)), figure.csv.as_bytes())?;
    for (stem, csv) in &figure.more_csv {
        write_whole(&folder.join(format!("{stem}.csv")), csv.as_bytes())?;
    }
    Ok(())
}

/// Writes beside the target and renames, so that a reader never sees half a file.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    let partial = path.with_file_name(name);
    std::fs::write(&partial, bytes)
        .and_then(|()| std::fs::rename(&partial, path))
        .map_err(|source| ReportError::Write { path: path.to_path_buf(), source })
}
