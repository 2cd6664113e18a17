//! Experiment files as texts: reading one, and those whose `[base]` it takes over with `extends = "other.toml"`.
//!
//! Start at [`read_text`] and [`chain`]. Paths are relative to the file that names them.

use super::error::{Fault, Origin, Place, Sources};
use super::suggest;
use super::sweep_file::kind_of;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use toml::de::DeTable;

/// An experiment file is a page or two of text.
const LARGEST: u64 = 1 << 20;
const LONGEST_CHAIN: usize = 16;

/// A file whose `[base]` is taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extended {
    pub path: PathBuf,
    pub text: String,
}

/// Why a file is no text to read: what is wrong, and help.
pub struct Unreadable {
    pub message: String,
    pub help: Option<String>,
}

/// The text of an experiment file.
///
/// # Errors
/// If it is not there, no file, too large, or no text.
pub fn read_text(path: &Path) -> Result<String, Unreadable> {
    let refuse = |message: String, help: Option<String>| Err(Unreadable { message, help });
    if path.is_dir() {
        return refuse("this is a folder, not an experiment file".to_owned(), contents(path));
    }
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        return refuse(format!("the experiment file cannot be read: {error}"), neighbours(path));
    }
    if bytes.len() as u64 > LARGEST {
        return refuse("more than a megabyte: an experiment file is a page of text".to_owned(), None);
    }
    let at = |offset: usize| {
        let start = bytes[..offset].iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        (bytes[..offset].iter().filter(|b| **b == b'\n').count() + 1, String::from_utf8_lossy(&bytes[start..offset]).chars().count() + 1)
    };
    if let Err(error) = std::str::from_utf8(&bytes) {
        let (line, column) = at(error.valid_up_to());
        let message = format!("not UTF-8 text: line {line}, column {column} has a byte that no character begins with");
        return refuse(message, Some("save the file as UTF-8".to_owned()));
    }
    if let Some(offset) = bytes.iter().position(|b| *b == 0) {
        let (line, column) = at(offset);
        return refuse(format!("not text: line {line}, column {column} has a zero byte"), Some("an experiment file is TOML".to_owned()));
    }
    String::from_utf8(bytes).or_else(|_| refuse("not UTF-8 text".to_owned(), None))
}

/// The files that a text extends, the nearest first; `read` gives their texts, and `sources` comes to know them.
pub fn chain(
    path: &Path,
    text: &str,
    read: &dyn Fn(&Path) -> Result<String, Unreadable>,
    sources: &mut Sources,
) -> (Vec<Extended>, Vec<Fault>) {
    let mut chain: Vec<Extended> = Vec::new();
    let mut seen = vec![normal(path)];
    loop {
        let (here, text, origin) = match chain.last() {
            None => (path, text, Origin::File),
            Some(last) => (last.path.as_path(), last.text.as_str(), Origin::Extended(chain.len() - 1)),
        };
        let (document, _) = DeTable::parse_recoverable(text);
        let Some(value) = document.get_ref().get("extends") else { return (chain, Vec::new()) };
        let place = Place { origin, span: value.span() };
        let one = |sources: &Sources, message: String, label: &str, help: Option<String>| {
            vec![sources.fault(message, vec![(place.clone(), label.to_owned())], help)]
        };
        let Some(name) = value.get_ref().as_str() else {
            let message = format!("`extends` is {}, but must be the path of one file", kind_of(value.get_ref()));
            let faults = one(sources, message, "not a path", Some("extends = \"other.toml\", relative to this file".to_owned()));
            return (chain, faults);
        };
        let next = here.parent().unwrap_or(Path::new("")).join(name);
        if seen.contains(&normal(&next)) || chain.len() == LONGEST_CHAIN {
            let message = if seen.contains(&normal(&next)) {
                format!("{} extends itself", seen.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", which extends "))
            } else {
                format!("more than {LONGEST_CHAIN} files extend each other")
            };
            let faults = one(sources, message, "leads back", Some("delete this line".to_owned()));
            return (chain, faults);
        }
        match read(&next) {
            Ok(text) => {
                sources.add(&next, &text);
                seen.push(normal(&next));
                chain.push(Extended { path: next, text });
            }
            Err(unreadable) => {
                let message = format!("`extends`: {}: {}", next.display(), unreadable.message);
                let faults = one(sources, message, "not readable", unreadable.help);
                return (chain, faults);
            }
        }
    }
}

/// A path without `.` and without what `..` takes back.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => drop(out.pop()),
            other => out.push(other),
        }
    }
    out
}

/// Help for a missing file: the experiment files beside it, the nearest name first.
fn neighbours(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names = experiments(folder)?;
    let wanted = path.file_name()?.to_string_lossy().into_owned();
    match suggest::nearest(&wanted, names.iter().map(String::as_str)) {
        Some(near) => Some(format!("did you mean {}?", folder.join(near).display())),
        None => contents(folder),
    }
}

/// Help for a folder: the experiment files in it.
fn contents(folder: &Path) -> Option<String> {
    let names = experiments(folder)?;
    (!names.is_empty()).then(|| format!("{} has {}", folder.display(), names.join(", ")))
}

fn experiments(folder: &Path) -> Option<Vec<String>> {
    let entries = std::fs::read_dir(folder).ok()?;
    let names = entries.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".toml")).collect();
    names.sort_unstable();
    Some(names)
}
