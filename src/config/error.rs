//! What is wrong with an experiment file, said so that it can be put right.
//!
//! Start at [`ConfigErrors`]: every fault of one file at once, each with the place it was written, what is allowed and,
//! where there is a near one, a suggestion. Prints itself through any of miette's handlers.

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};
use std::fmt::Display;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Which text a place lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    File,
    /// A file that it extends, the nearest first.
    Extended(usize),
    /// The overrides, one a line.
    CommandLine,
}

/// Where something was written, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub origin: Origin,
    pub span: Range<usize>,
}

/// The texts a configuration is made of.
#[derive(Clone, Debug)]
pub struct Sources {
    file: NamedSource<Arc<str>>,
    extended: Vec<NamedSource<Arc<str>>>,
    command_line: NamedSource<Arc<str>>,
    name: String,
}

impl Sources {
    /// `path` is only a name here: nothing is read.
    pub fn new(path: &Path, text: &str, overrides: &[String]) -> Self {
        let name = path.display().to_string();
        Self {
            file: NamedSource::new(&name, Arc::from(text)),
            extended: Vec::new(),
            command_line: NamedSource::new("command line", Arc::from(overrides.join("\n"))),
            name,
        }
    }

    /// One more file that the others extend.
    pub fn add(&mut self, path: &Path, text: &str) {
        self.extended.push(NamedSource::new(path.display().to_string(), Arc::from(text)));
    }

    /// A fault with its labels, the first one the most telling. Without any, the message names the file.
    pub fn fault(&self, message: impl Into<String>, labels: Vec<(Place, String)>, help: Option<String>) -> Fault {
        let message = message.into();
        let Some((first, _)) = labels.first().cloned() else {
            return Fault { message: format!("{}: {message}", self.name), help, labels: Vec::new(), shown: None, order: (Origin::File, 0) };
        };
        // One picture shows one text; what lies in the other is told in words.
        let (here, there): (Vec<_>, Vec<_>) = labels.into_iter().partition(|(place, _)| place.origin == first.origin);
        let mut help = help;
        for (place, text) in there {
            let written = &self.text(place.origin)[place.span.clone()];
            let other = self.source(place.origin).name();
            let text = if text.is_empty() { String::new() } else { format!("{text}: ") };
            help = Some(format!("{}{text}{written} ({other})", help.map(|h| h + "\n").unwrap_or_default()));
        }
        let shown = self.source(first.origin).clone();
        let labels = here.into_iter().enumerate().map(|(i, (place, text))| {
            let text = (!text.is_empty()).then_some(text);
            if i == 0 { LabeledSpan::new_primary_with_span(text, place.span) } else { LabeledSpan::new_with_span(text, place.span) }
        });
        Fault { message, help, labels: labels.collect(), shown: Some(shown), order: (first.origin, first.span.start) }
    }

    fn text(&self, origin: Origin) -> &str {
        self.source(origin).inner()
    }

    fn source(&self, origin: Origin) -> &NamedSource<Arc<str>> {
        match origin {
            Origin::File => &self.file,
            Origin::Extended(i) => self.extended.get(i).unwrap_or(&self.file),
            Origin::CommandLine => &self.command_line,
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    pub message: String,
    pub help: Option<String>,
    labels: Vec<LabeledSpan>,
    shown: Option<NamedSource<Arc<str>>>,
    order: (Origin, usize),
}

impl Fault {
    /// Byte ranges of the places it points at, all in one text; the first is the most telling.
    pub fn spans(&self) -> Vec<Range<usize>> {
        self.labels.iter().map(|l| l.offset()..l.offset() + l.len()).collect()
    }
}

impl Diagnostic for Fault {
    fn help<'a>(&'a self) -> Option<Box<dyn Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn Display>)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.shown.as_ref().map(|s| s as &dyn SourceCode)
    }
}

/// Everything that is wrong with one experiment file and its overrides; at least one fault.
#[derive(Clone, Debug)]
pub struct ConfigErrors {
    name: String,
    faults: Vec<Fault>,
}

impl ConfigErrors {
    /// In the order of the text.
    pub fn new(path: &Path, mut faults: Vec<Fault>) -> Self {
        faults.sort_by_key(|fault| fault.order);
        Self { name: path.display().to_string(), faults }
    }

    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

impl Display for ConfigErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.faults.as_slice() {
            [only] => only.fmt(f),
            faults => write!(f, "{} faults in {}", faults.len(), self.name),
        }
    }
}

impl std::error::Error for ConfigErrors {}

/// One fault prints as itself; several print below a line that counts them.
impl Diagnostic for ConfigErrors {
    fn help<'a>(&'a self) -> Option<Box<dyn Display + 'a>> {
        self.only()?.help()
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.only()?.labels()
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.only()?.source_code()
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        (self.faults.len() > 1).then(|| Box::new(self.faults.iter().map(|f| f as &dyn Diagnostic)) as Box<dyn Iterator<Item = _>>)
    }
}

impl ConfigErrors {
    fn only(&self) -> Option<&Fault> {
        match self.faults.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }
}
