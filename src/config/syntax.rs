//! What of a text is TOML, and one fault for each statement that is not.
//!
//! Start at [`sound_part`]. A parser that recovers guesses what a broken statement meant, and its guesses make faults that
//! nobody made. Here a broken statement is told once, blanked out, and the rest is read as if it had never been there.

use super::error::{Fault, Origin, Place, Sources};
use std::ops::Range;
use toml::de::DeTable;

/// With more broken statements than this, or nothing that looks like one, the file is something else than TOML.
const MOST_FAULTS: usize = 8;

/// The text with every broken statement blanked out, so that places stay what they are, and a fault for each.
pub fn sound_part(text: &str, origin: Origin, sources: &Sources) -> (String, Vec<Fault>) {
    let mut sound = text.to_owned();
    let mut faults: Vec<Fault> = Vec::new();
    // A byte order mark is not part of the text.
    if sound.starts_with('\u{feff}') {
        sound.replace_range(..'\u{feff}'.len_utf8(), "   ");
    }
    let mut blanked: Option<Range<usize>> = None;
    loop {
        let (_, errors) = DeTable::parse_recoverable(&sound);
        let Some(error) = errors.iter().min_by_key(|error| error.span().map_or(0, |span| span.start)) else { break };
        let span = error.span().unwrap_or(0..0);
        let broken = statement_at(&sound, span.start);
        // The rest of a statement whose bracket is missing is no second mistake.
        let rest =
            blanked.as_ref().is_some_and(|before| before.end == broken.range.start) && !begins_statement(&sound[broken.range.clone()]);
        if !rest {
            faults.push(match broken.unclosed {
                Some(at) => unclosed(text, at, origin, sources),
                None => syntax_fault(error.message(), span, text, origin, sources),
            });
        }
        let range = if sound[broken.range.clone()].trim().is_empty() { 0..sound.len() } else { broken.range };
        let blank: String = sound[range.clone()].bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }).collect();
        sound.replace_range(range.clone(), &blank);
        blanked = Some(range);
    }
    let lines = || text.lines().filter(|line| !line.trim().is_empty());
    let foreign = lines().count() > 1 && !lines().any(begins_statement);
    if faults.len() > MOST_FAULTS || (foreign && !faults.is_empty()) {
        let mut first = faults.swap_remove(0);
        first.message = "this is not TOML".to_owned();
        first.help = Some(format!("{}lines `key = value`, below a line like [base] or [grid]", resembles(text)));
        return (" ".repeat(text.len()), vec![first]);
    }
    (sound, faults)
}

/// What a text may be that is no TOML, as the beginning of a line of help.
fn resembles(text: &str) -> &'static str {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    match first {
        line if line.starts_with('{') => "this looks like JSON; an experiment file has ",
        line if line.starts_with('<') => "this looks like a web page; an experiment file has ",
        line if line.starts_with("---") || line.split_once(": ").is_some() || line.ends_with(':') => {
            "this looks like YAML; an experiment file has "
        }
        _ => "an experiment file has ",
    }
}

/// A statement that is broken: its lines, and the bracket that makes it run on, where one does.
struct Broken {
    range: Range<usize>,
    unclosed: Option<usize>,
}

/// A line, and what was open where it began.
struct Line {
    range: Range<usize>,
    /// Brackets, by their offsets.
    open: Vec<usize>,
    in_text: bool,
}

/// The statement around `at`.
fn statement_at(text: &str, at: usize) -> Broken {
    let lines = lines(text);
    let here = lines.iter().rposition(|line| line.range.start <= at).unwrap_or(0);
    let fresh = |line: &Line| line.open.is_empty() && !line.in_text;
    let first = lines[..=here].iter().rposition(fresh).unwrap_or(0);
    let begins = |line: &Line| begins_statement(&text[line.range.clone()]);
    match lines.iter().skip(first + 1).position(fresh).map(|n| first + 1 + n) {
        // The last line is empty and after everything.
        Some(next) if next + 1 < lines.len() || lines[next].range.start > lines[first].range.start => {
            // Without its header a section's keys would be somebody else's.
            let header = text[lines[first].range.clone()].trim_start().starts_with('[');
            let end = if header { section_end(text, &lines, first) } else { lines[next].range.start };
            Broken { range: lines[first].range.start..end, unclosed: None }
        }
        _ if text[lines[first].range.clone()].trim_start().starts_with('[') => {
            // An open header is one line, and goes on as below.
            Broken { range: lines[first].range.start..section_end(text, &lines, first), unclosed: None }
        }
        _ => {
            let next = lines[first + 1..].iter().position(begins).map_or(text.len(), |n| lines[first + 1 + n].range.start);
            let unclosed = lines.get(first + 1).and_then(|line| line.open.first().copied());
            Broken { range: lines[first].range.start..next, unclosed }
        }
    }
}

/// Where the section whose header is the line `first` ends.
fn section_end(text: &str, lines: &[Line], first: usize) -> usize {
    let header = |line: &Line| {
        let line = text[line.range.clone()].trim_start();
        line.starts_with('[') && begins_statement(line)
    };
    lines[first + 1..].iter().find(|line| header(line)).map_or(text.len(), |line| line.range.start)
}

/// `key = …` or `[header]`.
fn begins_statement(line: &str) -> bool {
    let line = line.trim();
    let is_key = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "_-.\"' ".contains(c));
    if let Some(rest) = line.strip_prefix('[') {
        let name = rest.trim_start_matches('[').split(']').next().unwrap_or_default();
        return rest.contains(']') && is_key(name) && !name.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.');
    }
    line.split_once('=').is_some_and(|(key, _)| is_key(key.trim()))
}

/// The lines of a text, and an empty one at its end.
fn lines(text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    // The quotes that end the text we are in.
    let mut quote: Option<&str> = None;
    let (mut start, mut i) = (0, 0);
    let (mut open_before, mut text_before) = (Vec::new(), false);
    while i < text.len() {
        let rest = &text[i..];
        let c = rest.chars().next().unwrap_or(' ');
        let mut width = c.len_utf8();
        match (quote, c) {
            (_, '\n') => {
                // A text in single quotes cannot go on.
                quote = quote.filter(|q| q.len() == 3);
                lines.push(Line { range: start..i + 1, open: std::mem::replace(&mut open_before, open.clone()), in_text: text_before });
                (start, text_before) = (i + 1, quote.is_some());
            }
            (Some("\"" | "\"\"\""), '\\') => width += rest[1..].chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8),
            (Some(q), _) if rest.starts_with(q) => (quote, width) = (None, q.len()),
            (Some(_), _) => {}
            (None, '"' | '\'') => {
                let q = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|q| rest.starts_with(q)).unwrap_or("\"");
                (quote, width) = (Some(q), q.len());
            }
            (None, '#') => width = rest.find('\n').unwrap_or(rest.len()),
            (None, '[' | '{') => open.push(i),
            (None, ']' | '}') => drop(open.pop()),
            (None, _) => {}
        }
        i += width;
    }
    lines.push(Line { range: start..text.len(), open: open_before, in_text: text_before });
    if start < text.len() {
        lines.push(Line { range: text.len()..text.len(), open, in_text: quote.is_some() });
    }
    lines
}

fn unclosed(text: &str, at: usize, origin: Origin, sources: &Sources) -> Fault {
    let (bracket, closing) = if text[at..].starts_with('{') { ("{", "}") } else { ("[", "]") };
    let place = Place { origin, span: at..at + 1 };
    sources.fault(
        format!("not valid TOML: this `{bracket}` is not closed"),
        vec![(place, "opened here".to_owned())],
        Some(format!("put the missing `{closing}` at the end of the value")),
    )
}

fn syntax_fault(message: &str, span: Range<usize>, text: &str, origin: Origin, sources: &Sources) -> Fault {
    // An error at the end of a line has no width; move it onto the last character, where it can be seen.
    let span = if span.is_empty() && span.start > 0 {
        let start = text[..span.start].char_indices().next_back().map_or(0, |(i, _)| i);
        if text[start..].starts_with('\n') { span } else { start..span.start }
    } else {
        span
    };
    let written = text[span.clone()].trim();
    let word = !written.is_empty() && written.chars().all(|c| c.is_alphanumeric() || "_-:./".contains(c));
    let help = (word && message.contains("must be quoted")).then(|| format!("write \"{written}\""));
    sources.fault("not valid TOML", vec![(Place { origin, span }, message.to_owned())], help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn sound(text: &str) -> (String, Vec<String>) {
        let (rest, faults) = sound_part(text, Origin::File, &Sources::new(Path::new("x.toml"), text, &[]));
        assert_eq!(rest.len(), text.len());
        assert!(DeTable::parse_recoverable(&rest).1.is_empty(), "{rest}");
        let kept: Vec<&str> = rest.lines().filter(|line| !line.trim().is_empty()).collect();
        (kept.join("|"), faults.iter().map(|fault| fault.message.clone()).collect())
    }

    #[test]
    fn what_is_sound_is_kept_as_it_is() {
        let text = "a = 1\n[b]\nc = [\n  1, # ]\n]\nd = \"\"\"\n [ \n\"\"\"\n";
        assert_eq!(sound_part(text, Origin::File, &Sources::new(Path::new("x"), text, &[])).0, text);
        assert!(sound("\u{feff}a = 1").1.is_empty());
    }

    #[test]
    fn a_missing_bracket_is_one_fault_at_the_bracket_and_spares_what_follows() {
        for (text, kept) in [
            ("x = { a = 1, b = 2\ny = 3\n[t]\nz = 4\n", "y = 3|[t]|z = 4"),
            ("x = [1, 2\ny = 3\n[t]\nz = 4\n", "y = 3|[t]|z = 4"),
            ("x = [\n  1,\n  2,\n[t]\nz = 4\n", "[t]|z = 4"),
            ("[t]\nx = [[1], [2]\n\n[u]\nz = { a = [3] }", "[t]|[u]|z = { a = [3] }"),
        ] {
            let (rest, faults) = sound(text);
            assert_eq!(rest, kept, "{text}");
            assert!(faults.len() == 1 && faults[0].ends_with("is not closed"), "{text}: {faults:?}");
        }
    }

    #[test]
    fn each_broken_statement_is_told_once_and_the_rest_is_read() {
        let (rest, faults) = sound("a = \nb = 2\nb = 3\nc = linear\nd = \"x\ne = 5");
        assert_eq!(rest, "b = 2|e = 5");
        assert_eq!(faults.len(), 4);
        let (rest, faults) = sound("a = \"\"\"\nnever ends\nb = 2\n");
        assert_eq!((rest.as_str(), faults.len()), ("b = 2", 1));
        let (rest, faults) = sound("a = \"one\n  two\"\nb = 2\n");
        assert_eq!((rest.as_str(), faults.len()), ("b = 2", 1), "what is left of a string that a line broke");
        let (rest, faults) = sound("a = [1, 2]]\nb = }\nc = 3");
        assert_eq!((rest.as_str(), faults.len()), ("c = 3", 2));
    }

    #[test]
    fn a_broken_header_takes_its_keys_with_it() {
        let (rest, faults) = sound("[a]\nx = 1\n[b\ny = 2\nz = [\n 1,\n]\n[c]\nx = 3\n[a]\nq = 4\n[[d]]\nx = 5");
        assert_eq!(rest, "[a]|x = 1|[c]|x = 3|[[d]]|x = 5");
        assert_eq!(faults.len(), 2);
    }

    #[test]
    fn what_is_something_else_is_one_fault() {
        for text in ["{\n  \"base\": {\n    \"lr\": 1\n  }\n}\n", "base:\n  lr: 1\ngrid:\n  loss: [a]\n", "import torch\nfrom x import y\n"]
        {
            let (_, faults) = sound(text);
            assert_eq!(faults, ["this is not TOML"], "{text}");
        }
    }
}
