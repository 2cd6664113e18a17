//! `--only AXIS=VALUE[,VALUE]`: a part of a grid. The grid stays what it is; the runs that are not picked are not run.
//!
//! Start at [`Grid::pick`].

use super::error::{ConfigErrors, Fault, Origin, Sources};
use super::grid::{Grid, GridRun};
use super::keys::{self, KeySpec};
use super::overrides::{readable, split, trim};
use super::run::RunConfig;
use super::stored::key_named;
use super::suggest;
use super::sweep_file::{Reader, listed};
use super::value::plain;
use crate::record::CASE;

/// What a choice is about.
#[derive(Clone, Copy)]
enum Of {
    Case,
    Seed,
    Key(&'static KeySpec<RunConfig>),
}

impl Of {
    /// The full key, its short name in cells, `case` or `seed`.
    fn find(name: &str) -> Option<Self> {
        match name {
            CASE => Some(Self::Case),
            "seed" | "seeds" => Some(Self::Seed),
            _ => key_named(name).map(Self::Key),
        }
    }

    /// A run's value, as [`plain`] writes it.
    fn value(self, run: &GridRun) -> Option<String> {
        match self {
            Self::Case => run.axes.iter().find(|(key, _)| key == CASE).map(|(_, name)| name.clone()),
            Self::Seed => Some(run.seed.to_string()),
            Self::Key(spec) => Some(plain(&(spec.get)(&run.config))),
        }
    }
}

impl Grid {
    /// Marks the runs that every choice of `only` allows as picked, and no others.
    ///
    /// # Errors
    /// If a choice names no axis or a value that no run has, or nothing is left.
    pub fn pick(&mut self, only: &[String]) -> Result<(), ConfigErrors> {
        let sources = Sources::new(&self.source, &self.text, only);
        let mut faults: Vec<Fault> = Vec::new();
        let mut shift = 0;
        for text in only {
            let mut reader = Reader::new(&sources, Origin::CommandLine, text, shift);
            if let Some((of, values)) = choice(&mut reader, text, &self.runs) {
                for run in &mut self.runs {
                    run.picked &= of.value(run).is_some_and(|value| values.contains(&value));
                }
            }
            faults.append(&mut reader.faults);
            shift += text.len() + 1;
        }
        if faults.is_empty() && !self.runs.iter().any(|run| run.picked) {
            let help = "each of them alone picks some: all must hold".to_owned();
            faults.push(sources.fault(format!("no run has {} at once", only.join(" and ")), Vec::new(), Some(help)));
        }
        if faults.is_empty() { Ok(()) } else { Err(ConfigErrors::new(&self.source, faults)) }
    }
}

/// What a choice is about, and the values it allows; `None` where it is none, which has been told.
fn choice(reader: &mut Reader<'_>, text: &str, runs: &[GridRun]) -> Option<(Of, Vec<String>)> {
    let Some((key, _)) = text.split_once('=') else {
        let help = "AXIS=VALUE, or AXIS=a,b: --only schedule=cosine, --only case=4k-cosine".to_owned();
        reader.fault(format!("`{text}` picks nothing"), 0..text.len(), "no `=`", Some(help));
        return None;
    };
    let key_span = trim(text, 0..key.len());
    let name = &text[key_span.clone()];
    let axes = axes(runs);
    let Some(of) = Of::find(name) else {
        let mut names = axes.clone();
        for spec in axes.iter().filter_map(|key| keys::find(key)) {
            names.push(keys::label(spec));
        }
        let near = suggest::nearest(name, names.into_iter()).map(|near| format!("did you mean `{near}`?"));
        let help = near.or_else(|| (!axes.is_empty()).then(|| format!("the axes are {}", listed(&axes))));
        reader.fault(format!("there is no axis `{name}`"), key_span, "no such axis", help);
        return None;
    };
    let mut there: Vec<String> = Vec::new();
    for value in runs.iter().filter_map(|run| of.value(run)) {
        if !there.contains(&value) {
            there.push(value);
        }
    }
    let mut values = Vec::new();
    for piece in split(text, key.len() + 1) {
        let value = match of {
            Of::Case | Of::Seed => text[piece.clone()].to_owned(),
            Of::Key(spec) => plain(&reader.assignment(spec, &readable(text, piece.clone(), spec))?.written.value),
        };
        if there.contains(&value) {
            values.push(value);
            continue;
        }
        let help = match suggest::nearest(&value, there.iter().map(String::as_str)) {
            Some(near) => Some(format!("did you mean {near}?")),
            None if there.is_empty() => Some("the file has no [[case]]".to_owned()),
            None => Some(format!("there {} {}", if there.len() == 1 { "is only" } else { "are" }, there.join(", "))),
        };
        reader.fault(format!("no run has `{name}` = {value}"), piece, "no run has it", help);
        return None;
    }
    Some((of, values))
}

/// The axes that the runs are on.
fn axes(runs: &[GridRun]) -> Vec<&str> {
    let mut axes: Vec<&str> = Vec::new();
    for (key, _) in runs.iter().flat_map(|run| &run.axes) {
        if !axes.contains(&key.as_str()) {
            axes.push(key);
        }
    }
    axes
}
