//! `KEY=VALUE` and `KEY=a,b` from the command line, laid over an experiment file.
//!
//! Start at [`apply`]. One value becomes a constant, several an axis; either takes the place of what the file has for
//! that key. Values are TOML, with the quotes of a string left out where it is clear.

use super::error::{Fault, Origin, Sources};
use super::keys::KeySpec;
use super::run::RunConfig;
use super::suggest;
use super::sweep_file::{AnyKey, Assignment, Factor, FactorKind, Reader, SweepFile};
use std::ops::Range;
use toml::Spanned;
use toml::Value;
use toml::de::{DeArray, DeTable, DeValue};

/// Applies `overrides` in their order and returns what is wrong with them.
pub fn apply(file: &mut SweepFile, overrides: &[String], sources: &Sources) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    let mut shift = 0;
    for text in overrides {
        let mut reader = Reader::new(sources, Origin::CommandLine, text, shift);
        one(file, &mut reader, text, &mut seen);
        faults.append(&mut reader.faults);
        file.lost.add(reader.lost);
        shift += text.len() + 1;
    }
    faults
}

fn one(file: &mut SweepFile, reader: &mut Reader<'_>, text: &str, seen: &mut Vec<String>) {
    let Some((key, _)) = text.split_once('=') else {
        let help = "an override is KEY=VALUE, or KEY=a,b for an axis: train.lr=1e-4,1e-3".to_owned();
        return reader.fault(format!("`{text}` is not an override"), 0..text.len(), "no `=`", Some(help));
    };
    let key_span = trim(text, 0..key.len());
    let name = &text[key_span.clone()];
    let pieces = split(text, key.len() + 1);
    let whole = trim(text, key.len() + 1..text.len());
    // `data` and `data.name` are one key.
    let full = match AnyKey::find(name) {
        Some(AnyKey::Run(spec)) => spec.key,
        _ => name,
    };
    if seen.iter().any(|known| known == full) {
        return reader.fault(
            format!("`{name}` is given twice"),
            key_span,
            "again here",
            Some(format!("several values make an axis: {name}=a,b")),
        );
    }
    seen.push(full.to_owned());
    match name {
        "name" => {
            if let Some(name) = reader.experiment_name(text[whole.clone()].to_owned(), whole) {
                file.name = Some(name);
            }
            return;
        }
        "description" => {
            file.description = text[whole].to_owned();
            return;
        }
        "seeds" => {
            if let Some(ends) = text[whole.clone()].split_once("..") {
                file.seeds = seed_range(reader, ends, whole);
                file.asks = true;
                return;
            }
            // `seeds=[0, 1]` and `seeds=0,1` are the same.
            let value = match DeValue::parse(&text[whole.clone()]) {
                Ok(value) if value.get_ref().is_array() || value.get_ref().is_table() => moved(value, whole.start),
                _ => array(text, &pieces, whole),
            };
            file.seeds = reader.seeds(&value);
            file.asks = true;
            return;
        }
        _ => {}
    }
    match AnyKey::find(name) {
        Some(AnyKey::Run(spec)) => {
            file.asks = true;
            set(file, reader, text, spec, &pieces, whole);
        }
        Some(AnyKey::File(spec)) => {
            let value = parse(text, whole);
            reader.setting(spec, &value, &mut file.settings);
        }
        None => {
            let settings = name.starts_with("run.") || name.starts_with("report.");
            let help = suggest::for_key(name, settings);
            reader.fault(format!("unknown key `{name}`"), key_span, "no such key", Some(help));
        }
    }
}

/// `0..5`: 0 to 4.
fn seed_range(reader: &mut Reader<'_>, (from, to): (&str, &str), whole: Range<usize>) -> Vec<i64> {
    let number = |text: &str| text.trim().parse::<i64>().ok().filter(|n| *n >= 0);
    match (number(from), number(to)) {
        (Some(from), Some(to)) if from < to && to - from <= 10_000 => (from..to).collect(),
        _ => {
            let help = "0..5 is 0, 1, 2, 3, 4".to_owned();
            reader.fault("a range of seeds is FROM..TO, both whole numbers, TO the larger", whole, "not a range of seeds", Some(help));
            vec![0]
        }
    }
}

fn set(
    file: &mut SweepFile,
    reader: &mut Reader<'_>,
    text: &str,
    spec: &'static KeySpec<RunConfig>,
    pieces: &[Range<usize>],
    whole: Range<usize>,
) {
    let (constant, axis): (Option<Assignment>, Option<Factor>) = if pieces.len() > 1 {
        (None, reader.axis(spec, &readable_array(text, pieces, whole, spec)))
    } else {
        let value = readable(text, whole, spec);
        let items = value.get_ref().as_array();
        let is_axis =
            value.get_ref().is_table() || items.is_some_and(|items| !spec.is_array || items.iter().any(|item| item.get_ref().is_array()));
        if is_axis { (None, reader.axis(spec, &value)) } else { (reader.assignment(spec, &value), None) }
    };
    if constant.is_none() && axis.is_none() {
        // Refused: the fault says why.
        return;
    }
    let is_its_axis = |factor: &Factor| factor.kind == FactorKind::Grid && factor.assignments().any(|a| a.key.key == spec.key);
    let place = file.factors.iter().position(is_its_axis);
    file.forget(spec.key);
    file.base.extend(constant);
    if let Some(axis) = axis {
        file.factors.insert(place.unwrap_or(file.factors.len()).min(file.factors.len()), axis);
    }
}

/// The value as TOML, or as a string without its quotes.
fn parse(text: &str, span: Range<usize>) -> Spanned<DeValue<'_>> {
    match DeValue::parse(&text[span.clone()]) {
        Ok(value) => moved(value, span.start),
        Err(_) => bare(text, span),
    }
}

/// [`parse`], but a string where only a string is allowed: `data.name=2024` names a data set.
pub(super) fn readable<'t>(text: &'t str, span: Range<usize>, spec: &KeySpec<RunConfig>) -> Spanned<DeValue<'t>> {
    let value = parse(text, span.clone());
    let takes_text = (spec.set)(&mut RunConfig::literal_defaults(), &Value::String(text[span.clone()].to_owned())).is_ok();
    let scalar = !value.get_ref().is_str() && !value.get_ref().is_array();
    if takes_text && scalar { bare(text, span) } else { value }
}

fn readable_array<'t>(text: &'t str, pieces: &[Range<usize>], whole: Range<usize>, spec: &KeySpec<RunConfig>) -> Spanned<DeValue<'t>> {
    let mut items = DeArray::new();
    for piece in pieces {
        items.push(readable(text, piece.clone(), spec));
    }
    Spanned::new(whole, DeValue::Array(items))
}

fn array<'t>(text: &'t str, pieces: &[Range<usize>], whole: Range<usize>) -> Spanned<DeValue<'t>> {
    let mut items = DeArray::new();
    for piece in pieces {
        items.push(parse(text, piece.clone()));
    }
    Spanned::new(whole, DeValue::Array(items))
}

fn bare(text: &str, span: Range<usize>) -> Spanned<DeValue<'_>> {
    Spanned::new(span.clone(), DeValue::String(text[span].into()))
}

/// The value with its spans, and those of what is in it, moved by `by`.
fn moved(value: Spanned<DeValue<'_>>, by: usize) -> Spanned<DeValue<'_>> {
    let span = value.span().start + by..value.span().end + by;
    let inner = match value.into_inner() {
        DeValue::Array(items) => {
            let mut out = DeArray::new();
            for item in items {
                out.push(moved(item, by));
            }
            DeValue::Array(out)
        }
        DeValue::Table(entries) => {
            let mut out = DeTable::new();
            for (key, value) in entries {
                let span = key.span().start + by..key.span().end + by;
                out.insert(Spanned::new(span, key.into_inner()), moved(value, by));
            }
            DeValue::Table(out)
        }
        other => other,
    };
    Spanned::new(span, inner)
}

/// The pieces between commas that stand outside brackets, braces and quotes, trimmed.
pub(super) fn split(text: &str, from: usize) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let (mut depth, mut quote, mut escaped, mut start) = (0_i32, None, false, from);
    for (i, c) in text.char_indices().skip_while(|(i, _)| *i < from) {
        match (quote, c) {
            (Some('"'), '\\') => escaped = !escaped,
            (Some(q), c) if c == q && !escaped => quote = None,
            (Some(_), _) => escaped = false,
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth -= 1,
            (None, ',') if depth == 0 => {
                pieces.push(trim(text, start..i));
                start = i + 1;
            }
            _ => {}
        }
    }
    pieces.push(trim(text, start..text.len()));
    pieces
}

pub(super) fn trim(text: &str, span: Range<usize>) -> Range<usize> {
    let inner = &text[span.clone()];
    let start = span.start + (inner.len() - inner.trim_start().len());
    start..start + inner.trim().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_inside_brackets_and_quotes_do_not_split() {
        let pieces = |text: &str| split(text, 2).into_iter().map(|s| text[s].to_owned()).collect::<Vec<_>>();
        assert_eq!(pieces("k=a, b"), ["a", "b"]);
        assert_eq!(pieces("k=[1, 2],[3]"), ["[1, 2]", "[3]"]);
        assert_eq!(pieces(r#"k="a,b",'c,d'"#), [r#""a,b""#, "'c,d'"]);
        assert_eq!(pieces(r#"k="a\",b""#), [r#""a\",b""#]);
        assert_eq!(pieces("k=é,ü"), ["é", "ü"]);
        assert_eq!(pieces("k="), [""]);
    }
}
