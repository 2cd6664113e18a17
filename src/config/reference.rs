//! `[reference]`: published values with their source, to be drawn beside ours.
//!
//! Start at [`Reader::published`] for how they are written and [`references`] for the cells they stand for. Never part of
//! a run's identity.

use super::expand::{Cell, meets};
use super::keys::KeySpec;
use super::run::RunConfig;
use super::suggest;
use super::sweep_file::{AnyKey, Assignment, Factor, FactorKind, Reader, kind_of, listed, to_value};
use crate::record::{CASE, METRICS, Reference};
use std::collections::BTreeMap;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A reference as written.
#[derive(Clone, Debug)]
pub struct Published {
    pub name: String,
    pub values: BTreeMap<String, f64>,
    pub source: String,
    pub note: String,
    pub whom: Whom,
    /// Where it says which cells it is for.
    pub place: super::error::Place,
}

/// Which cells a reference is for.
#[derive(Clone, Debug)]
pub enum Whom {
    /// The whole sweep.
    All,
    /// Cells of a case, with one of the values of every key.
    Cells { case: Option<String>, keys: Vec<(&'static KeySpec<RunConfig>, Vec<Assignment>)> },
}

/// The references, each with the names of the cells that it stands for, and those that stand for none although they name
/// some.
pub fn references<'f>(published: &'f [Published], cells: &[Cell<'_>]) -> (Vec<Reference>, Vec<&'f Published>) {
    let (mut found, mut idle) = (Vec::new(), Vec::new());
    for p in published {
        let mut names: Vec<String> = Vec::new();
        if let Whom::Cells { case, keys } = &p.whom {
            for cell in cells {
                let named = case.as_ref().is_none_or(|case| cell.case() == Some(case));
                if named && meets(keys, |key| cell.find(key)) && !names.contains(&cell.name()) {
                    names.push(cell.name());
                }
            }
            if names.is_empty() {
                idle.push(p);
                continue;
            }
        }
        found.push(Reference {
            name: p.name.clone(),
            cells: names,
            values: p.values.clone(),
            source: p.source.clone(),
            note: p.note.clone(),
        });
    }
    (found, idle)
}

impl Reader<'_> {
    /// `[reference]`, `[reference.CASE]` or `[[reference]]`.
    pub(super) fn published(&mut self, value: &Spanned<DeValue<'_>>, factors: &[Factor]) -> Vec<Published> {
        let cases = factors.iter().filter(|f| f.kind == FactorKind::Case).flat_map(|f| &f.points);
        let cases: Vec<&str> = cases.filter_map(|point| point.name.as_deref()).collect();
        let table = match value.get_ref() {
            DeValue::Table(table) => table,
            _ => {
                let tables = self.tables("reference", value);
                return tables.into_iter().filter_map(|(table, span)| self.one_published(table, span, None, &cases)).collect();
            }
        };
        if table.iter().any(|(_, value)| !value.get_ref().is_table()) {
            // The whole sweep's, written without a list.
            return self.one_published(table, value.span(), None, &cases).into_iter().collect();
        }
        let mut all = Vec::new();
        for (key, value) in table {
            let name: &str = key.get_ref();
            if !cases.contains(&name) {
                if !self.lost.some {
                    self.no_such_case(name, key.span(), &cases);
                }
                continue;
            }
            if let Some(table) = value.get_ref().as_table() {
                all.extend(self.one_published(table, key.span(), Some(name), &cases));
            }
        }
        all
    }

    fn no_such_case(&mut self, name: &str, span: Range<usize>, cases: &[&str]) {
        let help = match suggest::nearest(name, cases.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None if cases.is_empty() => {
                "without cases, write [[reference]] with `name`, `source` and a value; `where = { .. }` picks cells".to_owned()
            }
            None => format!("the cases are {}", listed(cases)),
        };
        self.fault(format!("no case is called \"{name}\""), span, "no such case", Some(help));
    }

    fn one_published(&mut self, table: &DeTable<'_>, span: Range<usize>, case: Option<&str>, cases: &[&str]) -> Option<Published> {
        let before = self.faults.len();
        let own: &[&str] = if case.is_some() { &["source", "note"] } else { &["name", "source", "note", "where"] };
        let (mut name, mut source, mut note, mut values) = (None, None, String::new(), BTreeMap::new());
        let mut place = self.place(span.clone());
        let mut whom = case.map_or(Whom::All, |case| Whom::Cells { case: Some(case.to_owned()), keys: Vec::new() });
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "name" if case.is_none() => name = self.string("name", value),
                "source" => source = self.string("source", value),
                "note" => note = self.string("note", value).unwrap_or_default(),
                "where" if case.is_none() => {
                    place = self.place(value.span());
                    whom = self.picked_cells(value, cases);
                }
                metric if METRICS.contains(&metric) => {
                    let number = to_value(value.get_ref()).ok().and_then(|v| v.as_float().or_else(|| v.as_integer().map(|i| i as f64)));
                    match number.filter(|x| x.is_finite()) {
                        Some(x) => drop(values.insert(metric.to_owned(), x)),
                        None => {
                            let message = format!("`{metric}` is {}, but must be a number", kind_of(value.get_ref()));
                            self.fault(message, value.span(), "not a number", None);
                        }
                    }
                }
                other => {
                    let known: Vec<&str> = METRICS.iter().chain(own).copied().collect();
                    let help = match suggest::nearest(other, known.iter().copied()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("a reference has {}", listed(&known)),
                    };
                    self.fault(format!("unknown key `{other}` in a reference"), key.span(), "no such key", Some(help));
                }
            }
        }
        if self.faults.len() > before {
            return None;
        }
        if values.is_empty() {
            self.fault("this reference has no value", span, "nothing to compare with", Some(format!("it may have {}", listed(&METRICS))));
            return None;
        }
        let Some(source) = source.filter(|source| !source.trim().is_empty()) else {
            let help = "say where the number is printed: source = \"Nichol & Dhariwal 2021, Table 2\"".to_owned();
            self.fault("this reference has no source", span, "no `source`", Some(help));
            return None;
        };
        let name = name.or_else(|| case.map(str::to_owned)).filter(|name| !name.trim().is_empty()).unwrap_or_else(|| source.clone());
        Some(Published { name, values, source, note, whom, place })
    }

    fn picked_cells(&mut self, value: &Spanned<DeValue<'_>>, cases: &[&str]) -> Whom {
        let Some(table) = value.get_ref().as_table() else {
            self.fault(
                "`where` must be a table",
                value.span(),
                "not a table",
                Some("where = { diffusion.schedule = \"cosine\" }".to_owned()),
            );
            return Whom::All;
        };
        let mut case = None;
        if let Some(value) = table.get(CASE)
            && let Some(name) = self.string(CASE, value)
        {
            if !cases.contains(&name.as_str()) && !self.lost.some {
                self.no_such_case(&name, value.span(), cases);
            }
            case = Some(name);
        }
        // What is wrong here leaves no value of a run unknown.
        let lost = self.lost.clone();
        let mut keys = Vec::new();
        for (key, value) in self.leaves("where", table, &[CASE]) {
            let AnyKey::Run(spec) = key else { continue };
            if let Some(value) = self.assignment(spec, value) {
                keys.push((spec, vec![value]));
            }
        }
        self.lost = lost;
        if case.is_none() && keys.is_empty() {
            self.fault("`where` picks no cells", value.span(), "names no key", Some("leave it out for the whole sweep".to_owned()));
        }
        Whom::Cells { case, keys }
    }
}
