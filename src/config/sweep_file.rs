//! The experiment file as written: every value checked by itself, every one with its place.
//!
//! Start at [`SweepFile::parse`]. What values do together is not known here: see `check` for pairs and `expand` for
//! the cells; `combine` reads the tables that combine axes. Nothing is read through serde, because a user's typo must be
//! found and pointed at.

use super::error::{Fault, Origin, Place, Sources};
use super::extends::Extended;
use super::grid::FileSettings;
use super::keys::{self, FILE_KEYS, KEYS, KeySpec, SHORTHANDS};
use super::reference::Published;
use super::run::RunConfig;
use super::value::{either, render};
use super::{generator, suggest, syntax};
use std::collections::BTreeSet;
use std::ops::Range;
use toml::Spanned;
use toml::Value;
use toml::de::{DeTable, DeValue};

/// What an experiment file and its overrides say.
#[derive(Clone, Debug, Default)]
pub struct SweepFile {
    pub name: Option<String>,
    pub description: String,
    /// Never empty once parsed.
    pub seeds: Vec<i64>,
    /// Constants, one assignment to a key.
    pub base: Vec<Assignment>,
    /// What multiplies: in the order of the file, later ones vary faster.
    pub factors: Vec<Factor>,
    /// Alternatives, each multiplied by `factors`; none is as good as one that says nothing.
    pub blocks: Vec<Block>,
    pub excludes: Vec<Exclude>,
    pub published: Vec<Published>,
    pub settings: FileSettings,
    /// Whether anything at all asks for a run.
    pub asks: bool,
    /// What was written but not understood.
    pub lost: Lost,
}

/// A key and the value somebody gave it.
#[derive(Clone, Debug)]
pub struct Assignment {
    pub key: &'static KeySpec<RunConfig>,
    pub written: Written,
}

/// A value in its normal form, and where it was written.
#[derive(Clone, Debug)]
pub struct Written {
    pub value: Value,
    pub place: Place,
}

/// One direction of the grid.
#[derive(Clone, Debug)]
pub struct Factor {
    pub kind: FactorKind,
    /// At least one.
    pub points: Vec<Point>,
}

/// Which table a factor stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactorKind {
    /// One key.
    Grid,
    /// Keys that advance together: every point sets the same ones.
    Zip,
    /// Named points that each set keys of their own.
    Case,
}

/// One step along a factor.
#[derive(Clone, Debug)]
pub struct Point {
    /// Of a case.
    pub name: Option<String>,
    pub assignments: Vec<Assignment>,
}

/// One of several alternatives.
#[derive(Clone, Debug, Default)]
pub struct Block {
    pub set: Vec<Assignment>,
    pub factors: Vec<Factor>,
}

/// Cells that are left out: those with one of the values of every key.
#[derive(Clone, Debug)]
pub struct Exclude {
    /// No key twice; each with at least one value.
    pub keys: Vec<(&'static KeySpec<RunConfig>, Vec<Assignment>)>,
    pub place: Place,
}

/// Keys whose values are not known because something is wrong with them: what would follow from them is not told.
#[derive(Clone, Debug, Default)]
pub struct Lost {
    pub keys: BTreeSet<&'static str>,
    /// Something was lost without knowing which keys it had.
    pub some: bool,
    /// Which cells there are, or what is in them, is not known at all.
    pub cells: bool,
}

impl Lost {
    pub(super) fn add(&mut self, other: Lost) {
        self.keys.extend(other.keys);
        self.some |= other.some;
        self.cells |= other.cells;
    }
}

impl Factor {
    /// Where it begins.
    pub fn place(&self) -> Option<&Place> {
        self.assignments().map(|a| &a.written.place).min_by_key(|place| (place.origin, place.span.start))
    }

    pub fn assignments(&self) -> impl Iterator<Item = &Assignment> {
        self.points.iter().flat_map(|point| &point.assignments)
    }
}

impl FactorKind {
    /// As the table is written.
    pub fn table(self) -> &'static str {
        match self {
            Self::Grid => "[grid]",
            Self::Zip => "[[zip]]",
            Self::Case => "[[case]]",
        }
    }
}

impl std::fmt::Debug for KeySpec<RunConfig> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.key)
    }
}

/// The top level of an experiment file.
const TOP_LEVEL: &[&str] =
    &["name", "description", "extends", "seeds", "base", "grid", "zip", "exclude", "block", "case", "run", "report", "reference"];

/// What asks for a run by standing in a file.
const ASKING: &[&str] = &["base", "grid", "seeds", "zip", "block", "case", "extends"];

impl SweepFile {
    /// Reads `text`, and goes on after each fault to find the others. `[base]` lies over those of the files it extends,
    /// the nearest of which comes first.
    pub fn parse(text: &str, extended: &[Extended], sources: &Sources) -> (SweepFile, Vec<Fault>) {
        let (sound, mut faults) = syntax::sound_part(text, Origin::File, sources);
        let mut file = SweepFile { seeds: vec![0], ..SweepFile::default() };
        file.lost.cells = !faults.is_empty();
        let (document, _) = DeTable::parse_recoverable(&sound);
        let mut reader = Reader::new(sources, Origin::File, &sound, 0);
        reader.top_level(document.get_ref(), &mut file);
        file.lost.add(reader.lost);
        faults.append(&mut reader.faults);
        for (i, below) in extended.iter().enumerate() {
            file.lay_over(&below.text, Origin::Extended(i), sources, &mut faults);
        }
        (file, faults)
    }

    /// Takes the constants of another file for the keys that have none.
    fn lay_over(&mut self, text: &str, origin: Origin, sources: &Sources, faults: &mut Vec<Fault>) {
        let (sound, mut broken) = syntax::sound_part(text, origin, sources);
        self.lost.cells |= !broken.is_empty();
        faults.append(&mut broken);
        let (document, _) = DeTable::parse_recoverable(&sound);
        let mut reader = Reader::new(sources, origin, &sound, 0);
        if let Some(base) = document.get_ref().get("base") {
            let constants = reader.constants("base", base);
            let new: Vec<_> = constants.into_iter().filter(|a| !self.base.iter().any(|known| known.key.key == a.key.key)).collect();
            self.base.splice(0..0, new);
        }
        self.lost.add(reader.lost);
        faults.append(&mut reader.faults);
    }

    /// Every assignment that is no constant, in the order of the file.
    pub fn varying(&self) -> impl Iterator<Item = &Assignment> {
        let of_blocks = self.blocks.iter().flat_map(|b| b.set.iter().chain(b.factors.iter().flat_map(Factor::assignments)));
        self.factors.iter().flat_map(Factor::assignments).chain(of_blocks)
    }

    /// Takes a key out of everything that sets it; what then sets nothing goes too. Cases keep their names.
    pub fn forget(&mut self, key: &str) {
        let forget = |factors: &mut Vec<Factor>| {
            for point in factors.iter_mut().flat_map(|f| &mut f.points) {
                point.assignments.retain(|a| a.key.key != key);
            }
            factors.retain(|f| f.kind == FactorKind::Case || f.assignments().next().is_some());
        };
        self.base.retain(|a| a.key.key != key);
        forget(&mut self.factors);
        for block in &mut self.blocks {
            block.set.retain(|a| a.key.key != key);
            forget(&mut block.factors);
        }
    }
}

/// A key of either table.
#[derive(Clone, Copy)]
pub(super) enum AnyKey {
    Run(&'static KeySpec<RunConfig>),
    File(&'static KeySpec<FileSettings>),
}

impl AnyKey {
    /// The key of that full name, shorthands included.
    pub(super) fn find(full: &str) -> Option<Self> {
        if let Some(spec) = FILE_KEYS.iter().find(|spec| spec.key == full) {
            return Some(Self::File(spec));
        }
        let full = SHORTHANDS.iter().find(|(section, _)| *section == full).map_or(full, |(_, key)| key);
        keys::find(full).filter(|spec| !spec.section().is_empty()).map(Self::Run)
    }
}

/// Walks a text's values and collects faults.
pub(super) struct Reader<'s> {
    pub sources: &'s Sources,
    pub origin: Origin,
    pub text: &'s str,
    /// Where `text` begins in its source.
    pub shift: usize,
    pub faults: Vec<Fault>,
    pub lost: Lost,
    pub scratch: RunConfig,
}

pub(super) type Leaf<'a, 'i> = (AnyKey, &'a Spanned<DeValue<'i>>);

impl<'s> Reader<'s> {
    pub fn new(sources: &'s Sources, origin: Origin, text: &'s str, shift: usize) -> Self {
        let scratch = RunConfig::literal_defaults();
        Self { sources, origin, text, shift, faults: Vec::new(), lost: Lost::default(), scratch }
    }
}

impl Reader<'_> {
    fn top_level(&mut self, table: &DeTable<'_>, file: &mut SweepFile) {
        file.asks = ASKING.iter().any(|key| table.contains_key(*key));
        let mut references = None;
        for (key, value) in table {
            let name: &str = key.get_ref();
            match name {
                "name" => file.name = self.string(name, value).and_then(|text| self.experiment_name(text, value.span())),
                "description" => file.description = self.string(name, value).unwrap_or_default(),
                // Read before everything else, for the texts it names.
                "extends" => {}
                "seeds" => file.seeds = self.seeds(value),
                "base" => file.base = self.constants(name, value),
                "grid" => file.factors.extend(self.axes(name, value)),
                "zip" => file.factors.extend(self.zips(name, value)),
                "exclude" => file.excludes = self.excludes(value),
                "block" => file.blocks = self.blocks(value),
                "case" => file.factors.extend(self.cases(value)),
                "reference" => references = Some(value),
                "run" | "report" => {
                    for (key, value) in self.table(name, value) {
                        if let AnyKey::File(spec) = key {
                            self.setting(spec, value, &mut file.settings);
                        }
                    }
                }
                _ => self.unknown_top_level(name, key.span()),
            }
        }
        file.factors.sort_by_key(|factor| factor.place().map(|place| place.span.start));
        self.conflicts(file);
        if let Some(value) = references {
            file.published = self.published(value, &file.factors);
        }
    }

    /// Constants of a table, one for each key.
    pub(super) fn constants(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Vec<Assignment> {
        let leaves = self.table(name, value);
        leaves
            .into_iter()
            .filter_map(|(key, value)| if let AnyKey::Run(spec) = key { self.assignment(spec, value) } else { None })
            .collect()
    }

    /// The leaves of a table in the order of the text, whatever way their keys are nested.
    pub(super) fn table<'a, 'i>(&mut self, name: &str, value: &'a Spanned<DeValue<'i>>) -> Vec<Leaf<'a, 'i>> {
        let Some(table) = value.get_ref().as_table() else {
            let message = format!("`{name}` is {}, but must be a table", kind_of(value.get_ref()));
            self.lost.some = true;
            self.fault(message, value.span(), "not a table", Some(format!("write [{name}] on a line of its own, and keys below it")));
            return Vec::new();
        };
        self.leaves(name, table, &[])
    }

    /// [`table`](Self::table) without the keys of `own`, which are not those of a run.
    pub(super) fn leaves<'a, 'i>(&mut self, name: &str, table: &'a DeTable<'i>, own: &[&str]) -> Vec<Leaf<'a, 'i>> {
        let mut leaves = Vec::new();
        let settings = matches!(name, "run" | "report");
        self.descend(table, if settings { name } else { "" }, settings, own, &mut leaves);
        leaves.sort_by_key(|(_, value)| value.span().start);
        leaves
    }

    fn descend<'a, 'i>(&mut self, table: &'a DeTable<'i>, prefix: &str, settings: bool, own: &[&str], leaves: &mut Vec<Leaf<'a, 'i>>) {
        for (key, value) in table {
            let name: &str = key.get_ref();
            let full = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
            let known = AnyKey::find(&full).filter(|key| matches!(key, AnyKey::File(_)) == settings);
            match (known, value.get_ref()) {
                _ if own.contains(&full.as_str()) => {}
                // A generator is a value although it is a table: `data = { name = .. }` is none.
                (Some(key), DeValue::Table(inner)) if generator::is_one(inner) => leaves.push((key, value)),
                // A shorthand's section may hold a table too.
                (_, DeValue::Table(inner)) if !settings && is_section(&full) => self.descend(inner, &full, settings, own, leaves),
                (Some(key), _) => leaves.push((key, value)),
                (None, _) if !settings && is_section(&full) => {
                    self.lost.keys.extend(KEYS.iter().filter(|spec| spec.section() == full).map(|spec| spec.key));
                    let message = format!("`{full}` is a section, but has {} here", kind_of(value.get_ref()));
                    self.fault(message, value.span(), "not a table", Some(suggest::keys_of(&full)));
                }
                (None, _) => {
                    self.lose(&full, settings);
                    let help = match own {
                        _ if settings => suggest::for_key(&full, settings),
                        [] => suggest::for_key(&full, settings),
                        own => match suggest::nearest(&full, own.iter().copied()) {
                            Some(near) => format!("did you mean `{near}`?"),
                            None => suggest::for_key(&full, settings),
                        },
                    };
                    self.fault(format!("unknown key `{full}`"), key.span(), "no such key", Some(help));
                }
            }
        }
    }

    /// Notes which keys of a run an unknown one may have been meant for.
    fn lose(&mut self, full: &str, settings: bool) {
        if settings {
            return;
        }
        let meant = suggest::run_keys(full);
        self.lost.some |= meant.is_empty();
        self.lost.keys.extend(meant.iter().filter_map(|name| keys::find(name.trim_matches('`'))).map(|spec| spec.key));
    }

    fn unknown_top_level(&mut self, name: &str, span: Range<usize>) {
        self.lost.some = true;
        let help = match AnyKey::find(name) {
            Some(AnyKey::Run(spec)) => format!("`{name}` belongs in [base] (one value) or [grid] (several): `{}`", spec.key),
            _ if is_section(name) => format!("constants stand in [base.{name}], axes in [grid.{name}]"),
            _ => match suggest::nearest(name, TOP_LEVEL.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => match suggest::run_keys(name).as_slice() {
                    [] => format!("a file has {}", listed(TOP_LEVEL)),
                    near => format!("did you mean {}, in [base] or [grid]?", either(near)),
                },
            },
        };
        self.fault(format!("unknown key `{name}`"), span, "no such key", Some(help));
    }

    pub(super) fn string(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Option<String> {
        if let Some(text) = value.get_ref().as_str() {
            return Some(text.to_owned());
        }
        self.fault(format!("`{name}` is {}, but must be a string", kind_of(value.get_ref())), value.span(), "not a string", None);
        None
    }

    /// The name becomes a file's name, so it is held to what every file system takes.
    pub(super) fn experiment_name(&mut self, text: String, span: Range<usize>) -> Option<String> {
        if is_file_name(&text) {
            return Some(text);
        }
        let help = "up to 80 letters, digits, `-`, `_` and `.`, beginning with a letter or digit: it names files".to_owned();
        self.fault(format!("`name` cannot be {}", render(&Value::String(text))), span, "not a file name", Some(help));
        None
    }

    pub(super) fn seeds(&mut self, value: &Spanned<DeValue<'_>>) -> Vec<i64> {
        const EXAMPLE: &str = "for example seeds = [0, 1, 2], or seeds = { range = [0, 5] } for 0 to 4";
        let help = || Some(EXAMPLE.to_owned());
        if let DeValue::Table(table) = value.get_ref() {
            let Some(numbers) = self.generated("seeds", table, value.span()) else { return vec![0] };
            let seeds: Option<Vec<i64>> = numbers.iter().map(|n| n.whole().filter(|seed| *seed >= 0)).collect();
            return seeds.unwrap_or_else(|| {
                self.fault("a seed must be a whole number, 0 or more", value.span(), "not all are seeds", help());
                vec![0]
            });
        }
        let Some(items) = value.get_ref().as_array() else {
            self.fault(
                format!("`seeds` is {}, but must be an array", kind_of(value.get_ref())),
                value.span(),
                "not an array",
                Some("for example seeds = [0, 1, 2]".to_owned()),
            );
            return vec![0];
        };
        if items.is_empty() {
            self.fault(
                "`seeds` is empty: there would be nothing to run",
                value.span(),
                "no seed",
                Some("for example seeds = [0, 1, 2]".to_owned()),
            );
        }
        let mut seeds: Vec<(i64, Range<usize>)> = Vec::new();
        for item in items {
            match to_value(item.get_ref()).ok().and_then(|v| v.as_integer()).filter(|seed| *seed >= 0) {
                Some(seed) => match seeds.iter().find(|(known, _)| *known == seed) {
                    Some((_, first)) => self.twice(&format!("seed {seed} stands twice"), first.clone(), item.span()),
                    None => seeds.push((seed, item.span())),
                },
                None => self.fault("a seed must be a whole number, 0 or more", item.span(), "not a seed", None),
            }
        }
        if seeds.is_empty() { vec![0] } else { seeds.into_iter().map(|(seed, _)| seed).collect() }
    }

    pub(super) fn assignment(&mut self, spec: &'static KeySpec<RunConfig>, value: &Spanned<DeValue<'_>>) -> Option<Assignment> {
        let read = to_value(value.get_ref()).and_then(|v| match spec.normalise(&mut self.scratch, &v) {
            Ok(value) => Ok(value),
            Err(allowed) => Err(Refusal { value: Some(v), allowed }),
        });
        match read {
            Ok(normal) => Some(Assignment { key: spec, written: Written { value: normal, place: self.place(value.span()) } }),
            Err(refusal) => {
                self.lost.keys.insert(spec.key);
                self.refuse(spec, refusal, value.span());
                None
            }
        }
    }

    pub(super) fn setting(&mut self, spec: &'static KeySpec<FileSettings>, value: &Spanned<DeValue<'_>>, settings: &mut FileSettings) {
        let read = to_value(value.get_ref()).and_then(|v| match (spec.set)(settings, &v) {
            Ok(()) => Ok(()),
            Err(allowed) => Err(Refusal { value: Some(v), allowed }),
        });
        if let Err(refusal) = read {
            self.refuse(spec, refusal, value.span());
        }
    }

    fn refuse<S>(&mut self, spec: &KeySpec<S>, refusal: Refusal, span: Range<usize>) {
        let Some(value) = refusal.value else {
            return self.fault(format!("`{}` cannot be read", spec.key), span, &refusal.allowed, None);
        };
        let help = match &value {
            Value::Array(items) if !spec.is_array && !items.is_empty() => {
                Some("several values make an axis: write it under [grid]".to_owned())
            }
            Value::String(text) => suggest::nearest(text, (spec.choices)().into_iter()).map(|near| format!("did you mean \"{near}\"?")),
            Value::Float(x) if x.fract() == 0.0 && x.abs() < 1e15 && (spec.allowed)().contains("whole number") => {
                Some(format!("write {x}, without point or exponent"))
            }
            _ => None,
        };
        let shown = render(&value);
        let shown = if shown.chars().count() > 60 { kind_of_value(&value).to_owned() } else { shown };
        self.fault(format!("`{}` cannot be {shown}", spec.key), span, &format!("must be {}", refusal.allowed), help);
    }

    pub(super) fn twice(&mut self, message: &str, first: Range<usize>, second: Range<usize>) {
        let labels = vec![(self.place(second), "again here".to_owned()), (self.place(first), "first here".to_owned())];
        self.faults.push(self.sources.fault(message, labels, Some("delete one of them".to_owned())));
    }

    pub(super) fn place(&self, span: Range<usize>) -> Place {
        Place { origin: self.origin, span: span.start + self.shift..span.end + self.shift }
    }

    pub(super) fn fault(&mut self, message: impl Into<String>, span: Range<usize>, label: &str, help: Option<String>) {
        let labels = vec![(self.place(span), label.to_owned())];
        self.faults.push(self.sources.fault(message, labels, help));
    }
}

/// Why a value was not taken: no value at all where TOML's own range was left.
pub(super) struct Refusal {
    value: Option<Value>,
    allowed: String,
}

/// A parsed value without its spans.
pub(super) fn to_value(value: &DeValue<'_>) -> Result<Value, Refusal> {
    let out_of_range = |what: &str| Refusal { value: None, allowed: format!("{what} out of range") };
    Ok(match value {
        DeValue::String(s) => Value::String(s.clone().into_owned()),
        DeValue::Integer(i) => Value::Integer(i64::from_str_radix(i.as_str(), i.radix()).map_err(|_| out_of_range("a whole number"))?),
        DeValue::Float(x) => Value::Float(x.as_str().parse().map_err(|_| out_of_range("a number"))?),
        DeValue::Boolean(b) => Value::Boolean(*b),
        DeValue::Datetime(d) => Value::Datetime(*d),
        DeValue::Array(items) => Value::Array(items.iter().map(|item| to_value(item.get_ref())).collect::<Result<_, _>>()?),
        DeValue::Table(table) => {
            let entries = table.iter().map(|(k, v)| Ok((k.get_ref().clone().into_owned(), to_value(v.get_ref())?)));
            Value::Table(entries.collect::<Result<_, Refusal>>()?)
        }
    })
}

/// `a`, `b` and `c`, in backquotes.
pub(super) fn listed(names: &[&str]) -> String {
    either(&names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>()).replace(" or ", " and ")
}

fn is_section(name: &str) -> bool {
    KEYS.iter().any(|spec| spec.section() == name)
}

/// Letters, digits, `-`, `_`, `.`; not hidden, not long.
pub(super) fn is_file_name(text: &str) -> bool {
    text.len() <= 80
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
}

pub(super) fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a truth value",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

fn kind_of_value(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "this string",
        Value::Array(_) => "this array",
        Value::Table(_) => "this table",
        _ => "this value",
    }
}
