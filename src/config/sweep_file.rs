//! The experiment file as written: every value checked by itself, every one with its place.
//!
//! Start at [`SweepFile::parse`]. What values do together is not known here: see `check` for pairs and `expand` for
//! the product. Nothing is read through serde, because a user's typo must be found and pointed at.

use super::error::{Fault, Origin, Place, Sources};
use super::grid::FileSettings;
use super::keys::{self, FILE_KEYS, KEYS, KeySpec, SHORTHANDS};
use super::run::RunConfig;
use super::suggest;
use super::value::{either, render};
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
    /// In the order of the file; later ones vary faster.
    pub axes: Vec<Axis>,
    pub settings: FileSettings,
    /// Whether anything at all asks for a run.
    pub asks: bool,
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

/// One direction of the grid: its points set one key each, always the same one.
#[derive(Clone, Debug)]
pub struct Axis {
    pub key: &'static KeySpec<RunConfig>,
    /// At least one; no two equal.
    pub points: Vec<Assignment>,
}

impl std::fmt::Debug for KeySpec<RunConfig> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.key)
    }
}

/// The top level of an experiment file, with what each key holds.
const TOP_LEVEL: &[&str] = &["name", "description", "seeds", "base", "grid", "run", "report"];

impl SweepFile {
    /// Reads `text`, and goes on after each fault to find the others.
    pub fn parse(text: &str, sources: &Sources) -> (SweepFile, Vec<Fault>) {
        let (document, syntax) = DeTable::parse_recoverable(text);
        let mut reader =
            Reader { sources, origin: Origin::File, text, shift: 0, faults: Vec::new(), scratch: RunConfig::literal_defaults() };
        let mut file = SweepFile { seeds: vec![0], ..SweepFile::default() };
        reader.top_level(document.get_ref(), &mut file);
        let mut faults = reader.faults;
        if !syntax.is_empty() {
            // What was recovered around a syntax error is a guess: say nothing of the lines it touches.
            let broken: Vec<Range<usize>> = syntax.iter().filter_map(|e| e.span()).map(|span| lines_of(text, &span)).collect();
            faults
                .retain(|fault| !fault.spans().iter().any(|s| broken.iter().any(|b| s.start < b.end && b.start < s.end.max(s.start + 1))));
            faults.extend(syntax.iter().map(|e| syntax_fault(e, text, sources)));
        }
        (file, faults)
    }
}

/// The start and end of the lines a span lies on.
fn lines_of(text: &str, span: &Range<usize>) -> Range<usize> {
    let bytes = text.as_bytes();
    let (start, end) = (span.start.min(bytes.len()), span.end.min(bytes.len()));
    let first = bytes[..start].iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    let last = bytes[end..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |i| end + i + 1);
    first..last
}

fn syntax_fault(error: &toml::de::Error, text: &str, sources: &Sources) -> Fault {
    let span = error.span().unwrap_or(0..0);
    // An error at the end of a line has no width; move it onto the last character, where it can be seen.
    let span = if span.is_empty() && span.start > 0 {
        let start = text[..span.start].char_indices().next_back().map_or(0, |(i, _)| i);
        if text[start..].starts_with('\n') { span } else { start..span.start }
    } else {
        span
    };
    let place = Place { origin: Origin::File, span };
    sources.fault("not valid TOML", vec![(place, error.message().to_owned())], None)
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
    pub scratch: RunConfig,
}

type Leaf<'a, 'i> = (AnyKey, &'a Spanned<DeValue<'i>>);

impl Reader<'_> {
    fn top_level(&mut self, table: &DeTable<'_>, file: &mut SweepFile) {
        file.asks = ["base", "grid", "seeds"].iter().any(|key| table.contains_key(*key));
        for (key, value) in table {
            let name: &str = key.get_ref();
            match name {
                "name" => file.name = self.string(name, value).and_then(|text| self.experiment_name(text, value.span())),
                "description" => file.description = self.string(name, value).unwrap_or_default(),
                "seeds" => file.seeds = self.seeds(value),
                "base" => {
                    for (key, value) in self.table(name, value) {
                        if let AnyKey::Run(spec) = key {
                            file.base.extend(self.assignment(spec, value));
                        }
                    }
                }
                "grid" => {
                    for (key, value) in self.table(name, value) {
                        if let AnyKey::Run(spec) = key {
                            file.axes.extend(self.axis(spec, value));
                        }
                    }
                }
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
        for axis in &file.axes {
            if let Some(constant) = file.base.iter().find(|a| a.key.key == axis.key.key) {
                let labels = vec![
                    (constant.written.place.clone(), "a constant here".to_owned()),
                    (axis.points[0].written.place.clone(), "and an axis here".to_owned()),
                ];
                let message = format!("`{}` stands in [base] and in [grid]", axis.key.key);
                self.faults.push(self.sources.fault(message, labels, Some("delete one of them".to_owned())));
            }
        }
    }

    /// The leaves of a table in the order of the text, whatever way their keys are nested.
    fn table<'a, 'i>(&mut self, name: &str, value: &'a Spanned<DeValue<'i>>) -> Vec<Leaf<'a, 'i>> {
        let mut leaves = Vec::new();
        let settings = matches!(name, "run" | "report");
        match value.get_ref().as_table() {
            Some(table) => self.descend(table, if settings { name } else { "" }, settings, &mut leaves),
            None => {
                let message = format!("`{name}` is {}, but must be a table", kind_of(value.get_ref()));
                self.fault(message, value.span(), "not a table", Some(format!("write [{name}] on a line of its own, and keys below it")));
            }
        }
        leaves.sort_by_key(|(_, value)| value.span().start);
        leaves
    }

    fn descend<'a, 'i>(&mut self, table: &'a DeTable<'i>, prefix: &str, settings: bool, leaves: &mut Vec<Leaf<'a, 'i>>) {
        for (key, value) in table {
            let name: &str = key.get_ref();
            let full = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
            let known = AnyKey::find(&full).filter(|key| matches!(key, AnyKey::File(_)) == settings);
            match (known, value.get_ref()) {
                // A shorthand's section may hold a table too.
                (_, DeValue::Table(inner)) if !settings && is_section(&full) => self.descend(inner, &full, settings, leaves),
                (Some(key), _) => leaves.push((key, value)),
                (None, _) if !settings && is_section(&full) => {
                    let message = format!("`{full}` is a section, but has {} here", kind_of(value.get_ref()));
                    self.fault(message, value.span(), "not a table", Some(suggest::keys_of(&full)));
                }
                (None, _) => {
                    let help = suggest::for_key(&full, settings);
                    self.fault(format!("unknown key `{full}`"), key.span(), "no such key", Some(help));
                }
            }
        }
    }

    fn unknown_top_level(&mut self, name: &str, span: Range<usize>) {
        let help = match AnyKey::find(name) {
            Some(AnyKey::Run(spec)) => format!("`{name}` belongs in [base] (one value) or [grid] (several): `{}`", spec.key),
            _ if is_section(name) => format!("constants stand in [base.{name}], axes in [grid.{name}]"),
            _ => match suggest::nearest(name, TOP_LEVEL.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => match suggest::run_keys(name).as_slice() {
                    [] => format!(
                        "a file has {}",
                        either(&TOP_LEVEL.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>()).replace(" or ", " and ")
                    ),
                    near => format!("did you mean {}, in [base] or [grid]?", either(near)),
                },
            },
        };
        self.fault(format!("unknown key `{name}`"), span, "no such key", Some(help));
    }

    fn string(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Option<String> {
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
                self.refuse(spec, refusal, value.span());
                None
            }
        }
    }

    pub(super) fn axis(&mut self, spec: &'static KeySpec<RunConfig>, value: &Spanned<DeValue<'_>>) -> Option<Axis> {
        let key = spec.key;
        let Some(items) = value.get_ref().as_array() else {
            let shown = &self.text[value.span()];
            let help = if value.get_ref().is_table() || shown.contains('\n') {
                format!("{} = [..]; a constant belongs in [base]", spec.leaf())
            } else {
                format!("{} = [{shown}], or move it to [base]", spec.leaf())
            };
            self.fault(format!("`{key}` is an axis of [grid], so it must be an array of values"), value.span(), "not an array", Some(help));
            return None;
        };
        if items.is_empty() {
            let help = format!("give at least one value, or leave the key out: its default is {}", spec.default_words());
            self.fault(format!("the axis `{key}` is empty: there would be nothing to run"), value.span(), "no value", Some(help));
            return None;
        }
        if spec.is_array && items.iter().all(|item| !item.get_ref().is_array()) {
            let shown = &self.text[value.span()];
            let help = format!("{} = [{shown}] for one value, or move it to [base]", spec.leaf());
            self.fault(format!("each value of the axis `{key}` is itself an array"), value.span(), "not an array of arrays", Some(help));
            return None;
        }
        let mut points: Vec<Assignment> = Vec::new();
        for item in items {
            let Some(point) = self.assignment(spec, item) else { continue };
            match points.iter().find(|known| known.written.value == point.written.value) {
                Some(first) => {
                    let first = first.written.place.span.clone();
                    let message = format!("the axis `{key}` has {} twice", render(&point.written.value));
                    self.twice(&message, first.start - self.shift..first.end - self.shift, item.span());
                }
                None => points.push(point),
            }
        }
        (!points.is_empty()).then_some(Axis { key: spec, points })
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

    fn twice(&mut self, message: &str, first: Range<usize>, second: Range<usize>) {
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
struct Refusal {
    value: Option<Value>,
    allowed: String,
}

/// A parsed value without its spans.
fn to_value(value: &DeValue<'_>) -> Result<Value, Refusal> {
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

fn is_section(name: &str) -> bool {
    KEYS.iter().any(|spec| spec.section() == name)
}

/// Letters, digits, `-`, `_`, `.`; not hidden, not long.
pub(super) fn is_file_name(text: &str) -> bool {
    text.len() <= 80
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
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
