//! The tables that make cells: `[grid]`, `[[zip]]`, `[[case]]`, `[[block]]`, `[[exclude]]`, as they are written.
//!
//! Start at [`Reader::axes`]. What they expand to is in `expand`.

use super::keys::KeySpec;
use super::run::RunConfig;
use super::suggest;
use super::sweep_file::{AnyKey, Assignment, Block, Exclude, Factor, FactorKind, Leaf, Point, Reader, SweepFile, kind_of, listed};
use super::value::render;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The longest name of a case: it stands in legends and tables.
const LONGEST_NAME: usize = 60;

/// The tables of an array, each with where it stands.
type Tables<'a, 'i> = Vec<(&'a DeTable<'i>, Range<usize>)>;

impl Reader<'_> {
    /// One factor for each key of a table.
    pub(super) fn axes(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Vec<Factor> {
        let leaves = self.table(name, value);
        leaves.into_iter().filter_map(|(key, value)| if let AnyKey::Run(spec) = key { self.axis(spec, value) } else { None }).collect()
    }

    pub(super) fn axis(&mut self, spec: &'static KeySpec<RunConfig>, value: &Spanned<DeValue<'_>>) -> Option<Factor> {
        let values = self.values(spec, value, "an axis of [grid]", "or move it to [base]")?;
        let mut points: Vec<Point> = Vec::new();
        for value in values {
            match points.iter().find(|known| known.assignments[0].written.value == value.written.value) {
                Some(first) => {
                    let (first, again) = (self.span_of(&first.assignments[0]), self.span_of(&value));
                    self.twice(&format!("the axis `{}` has {} twice", spec.key, render(&value.written.value)), first, again);
                }
                None => points.push(Point { name: None, assignments: vec![value] }),
            }
        }
        (!points.is_empty()).then_some(Factor { kind: FactorKind::Grid, points })
    }

    /// The values of an array or of a rule, at least one; `None` where there are none, which has been told.
    fn values(
        &mut self,
        spec: &'static KeySpec<RunConfig>,
        value: &Spanned<DeValue<'_>>,
        what: &str,
        otherwise: &str,
    ) -> Option<Vec<Assignment>> {
        let key = spec.key;
        let taken = match value.get_ref() {
            DeValue::Table(table) => self.generated_for(spec, table, value.span()),
            DeValue::Array(items) if items.is_empty() => {
                let help = format!("give at least one value, or leave the key out: its default is {}", spec.default_words());
                self.fault(format!("the axis `{key}` is empty: there would be nothing to run"), value.span(), "no value", Some(help));
                None
            }
            DeValue::Array(items) if spec.is_array && items.iter().all(|item| !item.get_ref().is_array()) => {
                let shown = &self.text[value.span()];
                let help = format!("{} = [{shown}] for one value, {otherwise}", spec.leaf());
                self.fault(
                    format!("each value of the axis `{key}` is itself an array"),
                    value.span(),
                    "not an array of arrays",
                    Some(help),
                );
                None
            }
            DeValue::Array(items) => {
                let taken: Vec<Assignment> = items.iter().filter_map(|item| self.assignment(spec, item)).collect();
                return (!taken.is_empty()).then_some(taken);
            }
            _ => {
                let shown = &self.text[value.span()];
                let help = if shown.contains('\n') {
                    format!("{} = [..], {otherwise}", spec.leaf())
                } else {
                    format!("{} = [{shown}], {otherwise}", spec.leaf())
                };
                self.fault(format!("`{key}` is {what}, so it must be an array of values"), value.span(), "not an array", Some(help));
                None
            }
        };
        if taken.is_none() {
            self.lost.keys.insert(key);
        }
        taken
    }

    /// Axes that advance together, one factor for each table.
    pub(super) fn zips(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Vec<Factor> {
        let tables = self.tables(name, value);
        tables.into_iter().filter_map(|(table, span)| self.zip(table, span)).collect()
    }

    fn zip(&mut self, table: &DeTable<'_>, span: Range<usize>) -> Option<Factor> {
        let mut axes: Vec<(Vec<Assignment>, Range<usize>)> = Vec::new();
        let mut whole = true;
        for (key, value) in self.leaves("zip", table, &[]) {
            let AnyKey::Run(spec) = key else { continue };
            let given = value.get_ref().as_array().map(|items| items.len());
            match self.values(spec, value, "an axis of [[zip]]", "or move it to [base]") {
                Some(values) if given.is_none_or(|n| n == values.len()) => axes.push((values, value.span())),
                // One of its values was refused: its length says nothing.
                _ => whole = false,
            }
        }
        if !whole {
            self.lost.keys.extend(axes.iter().map(|(values, _)| values[0].key.key));
            return None;
        }
        let Some((first, first_span)) = axes.first() else {
            self.fault("this [[zip]] has no axis", span, "nothing advances", Some("for example train.lr = [1e-3, 1e-4]".to_owned()));
            return None;
        };
        if let Some((other, other_span)) = axes.iter().find(|(values, _)| values.len() != first.len()) {
            let many = |n: usize| format!("{n} value{}", if n == 1 { "" } else { "s" });
            let labels = vec![
                (self.place(other_span.clone()), format!("{} here", many(other.len()))),
                (self.place(first_span.clone()), format!("{} here", many(first.len()))),
            ];
            let message = format!("`{}` and `{}` advance together, but are of unequal length", first[0].key.key, other[0].key.key);
            let help = "the axes of one [[zip]] have one value for each point; independent axes belong in [grid]".to_owned();
            self.faults.push(self.sources.fault(message, labels, Some(help)));
            self.lost.keys.extend(axes.iter().map(|(values, _)| values[0].key.key));
            return None;
        }
        let points: Vec<Point> = (0..first.len())
            .map(|i| Point { name: None, assignments: axes.iter().map(|(values, _)| values[i].clone()).collect() })
            .collect();
        for (i, point) in points.iter().enumerate() {
            if let Some(k) = points[..i].iter().position(|known| same_values(known, point)) {
                let (first, again) = (self.span_of(&points[k].assignments[0]), self.span_of(&point.assignments[0]));
                self.twice(&format!("points {} and {} of this [[zip]] are the same", k + 1, i + 1), first, again);
            }
        }
        Some(Factor { kind: FactorKind::Zip, points })
    }

    /// Named cells: one factor.
    pub(super) fn cases(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Factor> {
        let mut points: Vec<(Point, Range<usize>)> = Vec::new();
        for (table, span) in self.tables("case", value) {
            let name = match table.get("name") {
                Some(name) => self.case_name(name).map(|text| (text, name.span())),
                None => {
                    let help = "give it one: name = \"4k-cosine\"; it stands in tables, legends and `ls`".to_owned();
                    self.fault("this [[case]] has no name", span, "no `name`", Some(help));
                    None
                }
            };
            let leaves = self.leaves("case", table, &["name"]);
            let assignments: Vec<Assignment> = leaves
                .into_iter()
                .filter_map(|(key, value): Leaf| if let AnyKey::Run(spec) = key { self.assignment(spec, value) } else { None })
                .collect();
            let Some((name, span)) = name else {
                self.lost.some = true;
                continue;
            };
            match points.iter().find(|(known, _)| known.name.as_ref() == Some(&name)) {
                Some((_, first)) => self.twice(&format!("two cases are called \"{name}\""), first.clone(), span),
                None => points.push((Point { name: Some(name), assignments }, span)),
            }
        }
        let points: Vec<Point> = points.into_iter().map(|(point, _)| point).collect();
        (!points.is_empty()).then_some(Factor { kind: FactorKind::Case, points })
    }

    fn case_name(&mut self, value: &Spanned<DeValue<'_>>) -> Option<String> {
        let name = self.string("name", value)?;
        let fit = !name.is_empty()
            && name.chars().count() <= LONGEST_NAME
            && name.trim() == name
            && !name.chars().any(|c| c.is_control() || ",=\"'".contains(c));
        if !fit {
            let help = format!("1 to {LONGEST_NAME} characters without commas, quotes and `=`");
            self.fault(format!("a case cannot be called {}", render(&toml::Value::String(name))), value.span(), "not a name", Some(help));
            return None;
        }
        Some(name)
    }

    /// Alternatives.
    pub(super) fn blocks(&mut self, value: &Spanned<DeValue<'_>>) -> Vec<Block> {
        const PARTS: [&str; 3] = ["set", "grid", "zip"];
        let mut blocks = Vec::new();
        for (table, span) in self.tables("block", value) {
            let mut block = Block::default();
            for (key, value) in table {
                match key.get_ref().as_ref() {
                    "set" => block.set = self.constants("block.set", value),
                    "grid" => block.factors.extend(self.axes("block.grid", value)),
                    "zip" => block.factors.extend(self.zips("block.zip", value)),
                    name => {
                        self.lost.some = true;
                        let help = match suggest::nearest(name, PARTS.into_iter()) {
                            Some(near) => format!("did you mean `{near}`?"),
                            None if AnyKey::find(name).is_some() => format!("constants of a block stand in [block.set]: set.{name} = .."),
                            None => format!("a [[block]] has {}", listed(&PARTS)),
                        };
                        self.fault(format!("unknown key `{name}` in [[block]]"), key.span(), "no such key", Some(help));
                    }
                }
            }
            if table.is_empty() {
                self.fault("this [[block]] is empty", span, "says nothing", Some(format!("a [[block]] has {}", listed(&PARTS))));
            }
            block.factors.sort_by_key(|factor| factor.place().map(|place| place.span.start));
            blocks.push(block);
        }
        blocks
    }

    pub(super) fn excludes(&mut self, value: &Spanned<DeValue<'_>>) -> Vec<Exclude> {
        let mut excludes = Vec::new();
        let before = self.faults.len();
        for (table, span) in self.tables("exclude", value) {
            let mut keys: Vec<(&'static KeySpec<RunConfig>, Vec<Assignment>)> = Vec::new();
            let mut place = None;
            let lost = self.lost.clone();
            for (key, value) in self.leaves("exclude", table, &[]) {
                let AnyKey::Run(spec) = key else { continue };
                place.get_or_insert(self.place(value.span()));
                let several =
                    value.get_ref().as_array().filter(|items| !spec.is_array || items.iter().any(|item| item.get_ref().is_array()));
                let values: Vec<Assignment> = match several {
                    Some(items) => items.iter().filter_map(|item| self.assignment(spec, item)).collect(),
                    None => self.assignment(spec, value).into_iter().collect(),
                };
                keys.push((spec, values));
            }
            // An exclusion sets nothing: what is wrong with it leaves no value unknown.
            self.lost = lost;
            let Some(place) = place else {
                let help = "name the cell to leave out: loss.variant = \"vlb\"".to_owned();
                self.fault("this [[exclude]] names no key", span, "would exclude everything", Some(help));
                continue;
            };
            excludes.push(Exclude { keys, place });
        }
        // A cell that was to be left out would be told to be impossible.
        self.lost.cells |= self.faults.len() > before;
        excludes
    }

    /// The tables of an array of tables, also where there is only one.
    pub(super) fn tables<'a, 'i>(&mut self, name: &str, value: &'a Spanned<DeValue<'i>>) -> Tables<'a, 'i> {
        let mut tables = Vec::new();
        match value.get_ref() {
            DeValue::Table(table) => tables.push((table, value.span())),
            DeValue::Array(items) => {
                for item in items {
                    match item.get_ref().as_table() {
                        Some(table) => tables.push((table, item.span())),
                        None => self.no_table(name, item),
                    }
                }
            }
            _ => self.no_table(name, value),
        }
        tables
    }

    fn no_table(&mut self, name: &str, value: &Spanned<DeValue<'_>>) {
        self.lost.some = true;
        let message = format!("`{name}` has {} here, but must have tables", kind_of(value.get_ref()));
        self.fault(message, value.span(), "not a table", Some(format!("write [[{name}]] on a line of its own, and keys below it")));
    }

    /// Where an assignment stands in this reader's text.
    fn span_of(&self, assignment: &Assignment) -> Range<usize> {
        let span = &assignment.written.place.span;
        span.start - self.shift..span.end - self.shift
    }

    /// Keys that two things set which are multiplied: there would be no telling which one holds.
    pub(super) fn conflicts(&mut self, file: &SweepFile) {
        for assignment in
            file.factors.iter().filter(|f| f.kind != FactorKind::Case).filter_map(|f| f.points.first()).flat_map(|p| &p.assignments)
        {
            if let Some(constant) = file.base.iter().find(|a| a.key.key == assignment.key.key) {
                let labels = vec![
                    (constant.written.place.clone(), "a constant here".to_owned()),
                    (assignment.written.place.clone(), "and an axis here".to_owned()),
                ];
                let table =
                    file.factors.iter().find(|f| f.assignments().any(|a| std::ptr::eq(a, assignment))).map_or("", |f| f.kind.table());
                let message = format!("`{}` stands in [base] and in {table}", assignment.key.key);
                self.faults.push(self.sources.fault(message, labels, Some("delete one of them".to_owned())));
            }
        }
        let blocks: Vec<&Block> = file.blocks.iter().collect();
        let alone = Block::default();
        let blocks = if blocks.is_empty() { vec![&alone] } else { blocks };
        let mut told: Vec<(usize, &str)> = Vec::new();
        for block in blocks {
            // What is multiplied, each with its table's name and the first place of every key it sets.
            let parts = file.factors.iter().map(|f| (f.kind.table(), first_of_each(f.assignments())));
            let set = [("[block.set]", first_of_each(block.set.iter()))];
            let own = block
                .factors
                .iter()
                .map(|f| (if f.kind == FactorKind::Grid { "[block.grid]" } else { "[[block.zip]]" }, first_of_each(f.assignments())));
            let parts: Vec<_> = parts.chain(set).chain(own).collect();
            for (i, (table, keys)) in parts.iter().enumerate() {
                for assignment in keys {
                    let key = assignment.key.key;
                    let clash = parts[..i].iter().find_map(|(other, known)| Some((other, known.iter().find(|a| a.key.key == key)?)));
                    let Some((other, known)) = clash else { continue };
                    if told.contains(&(known.written.place.span.start, key)) {
                        continue;
                    }
                    told.push((known.written.place.span.start, key));
                    let labels = vec![
                        (assignment.written.place.clone(), format!("in {table} here")),
                        (known.written.place.clone(), format!("in {other} here")),
                    ];
                    let help = "what is multiplied sets different keys: delete one of them".to_owned();
                    self.faults.push(self.sources.fault(format!("`{key}` is set twice in one cell"), labels, Some(help)));
                }
            }
        }
    }
}

fn first_of_each<'a>(assignments: impl Iterator<Item = &'a Assignment>) -> Vec<&'a Assignment> {
    let mut first: Vec<&Assignment> = Vec::new();
    for assignment in assignments {
        if !first.iter().any(|known| known.key.key == assignment.key.key) {
            first.push(assignment);
        }
    }
    first
}

fn same_values(a: &Point, b: &Point) -> bool {
    a.assignments.iter().zip(&b.assignments).all(|(x, y)| x.written.value == y.written.value)
}
