//! Configurations as `config.toml` keeps them, for commands that look at thousands: values by key, nothing checked.
//!
//! Start at [`StoredConfig::parse`]; [`filters`] reads what `ls` picks runs by. Whoever computes with a configuration
//! reads it with [`RunConfig::from_toml`], which checks everything and takes twenty times as long.

use super::error::{ConfigErrors, Fault, Origin, Sources};
use super::keys::{self, Identity, KEYS, KeyDefault, KeySpec};
use super::overrides::{readable, split, trim};
use super::run::RunConfig;
use super::suggest;
use super::sweep_file::{AnyKey, Reader};
use super::value::plain;
use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;
use toml::Value;

/// The value of every key; what an older version did not write has its fixed default.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredConfig {
    /// In the order of [`KEYS`]; `None` where a key that has no fixed default is not written.
    values: Vec<Option<Value>>,
}

impl StoredConfig {
    /// # Errors
    /// TOML's own message, if the text is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| e.message().to_owned())?;
        let written = |spec: &KeySpec<RunConfig>| match spec.section() {
            "" => table.get("seeds")?.as_array()?.first().cloned(),
            section => table.get("base")?.get(section)?.get(spec.leaf()).cloned(),
        };
        Ok(Self { values: KEYS.iter().zip(fixed_defaults()).map(|(spec, default)| written(spec).or_else(|| default.clone())).collect() })
    }

    pub fn get(&self, spec: &KeySpec<RunConfig>) -> Option<&Value> {
        self.values.get(place(spec)?)?.as_ref()
    }

    /// Every key that has a value, in the order of [`KEYS`].
    pub fn entries(&self) -> impl Iterator<Item = (&'static KeySpec<RunConfig>, &Value)> {
        KEYS.iter().zip(&self.values).filter_map(|(spec, value)| Some((spec, value.as_ref()?)))
    }
}

fn place(spec: &KeySpec<RunConfig>) -> Option<usize> {
    KEYS.iter().position(|other| other.key == spec.key)
}

fn fixed_defaults() -> &'static [Option<Value>] {
    static DEFAULTS: OnceLock<Vec<Option<Value>>> = OnceLock::new();
    DEFAULTS.get_or_init(|| {
        let defaults = RunConfig::literal_defaults();
        KEYS.iter().map(|spec| matches!(spec.default, KeyDefault::Literal(_)).then(|| (spec.get)(&defaults))).collect()
    })
}

/// The keys in which some of `configs` differ from others, in the order of [`KEYS`], for the columns of a table. Left out is
/// what tells no two runs apart that the others do not: where files lie, and what follows from other keys (the warm-up from
/// the number of steps).
pub fn differing(configs: &[&StoredConfig]) -> Vec<&'static KeySpec<RunConfig>> {
    let Some(first) = configs.first() else { return Vec::new() };
    let differs = |at: &usize| configs.iter().any(|config| config.values[*at] != first.values[*at]);
    let follows = |at: &usize| matches!(KEYS[*at].default, KeyDefault::Derived { .. });
    let counts = |at: &usize| !matches!(KEYS[*at].identity, Identity::Never);
    let (derived, mut kept): (Vec<usize>, Vec<usize>) = (0..KEYS.len()).filter(counts).filter(differs).partition(follows);
    // Which runs the kept keys tell apart: runs of one number are alike in all of them.
    let mut classes = vec![0; configs.len()];
    let mut number = 1;
    let refine = |classes: &[usize], at: usize| {
        let mut numbers: HashMap<(usize, String), usize> = HashMap::new();
        let mut refined = Vec::with_capacity(classes.len());
        for (class, config) in classes.iter().zip(configs) {
            let next = numbers.len();
            let value = config.values[at].as_ref().map(plain).unwrap_or_default();
            refined.push(*numbers.entry((*class, value)).or_insert(next));
        }
        (numbers.len(), refined)
    };
    for &at in &kept {
        (number, classes) = refine(&classes, at);
    }
    for at in derived {
        if number == configs.len() {
            break;
        }
        let (finer, refined) = refine(&classes, at);
        if finer > number {
            (number, classes) = (finer, refined);
            kept.push(at);
        }
    }
    kept.sort_unstable();
    kept.into_iter().map(|at| &KEYS[at]).collect()
}

/// The key that somebody means: by its full name, a section's shorthand, or its short name in cells and legends.
pub fn key_named(name: &str) -> Option<&'static KeySpec<RunConfig>> {
    match AnyKey::find(name) {
        Some(AnyKey::Run(spec)) => Some(spec),
        _ if name == "seeds" => keys::find("seed"),
        _ => keys::find(name).or_else(|| KEYS.iter().find(|spec| keys::label(spec) == name)),
    }
}

/// A line of help for a key that there is not.
pub fn help_for(name: &str) -> String {
    suggest::for_key(name, false)
}

/// What a run's configuration must have: one of the values of a key.
#[derive(Clone, Debug)]
pub struct Filter {
    spec: &'static KeySpec<RunConfig>,
    values: Vec<String>,
}

impl Filter {
    pub fn meets(&self, config: &StoredConfig) -> bool {
        config.get(self.spec).is_some_and(|value| self.values.contains(&plain(value)))
    }
}

/// Reads `KEY=VALUE[,VALUE]`, one a text.
///
/// # Errors
/// If a key does not exist or cannot have the value.
pub fn filters(texts: &[String]) -> Result<Vec<Filter>, ConfigErrors> {
    let name = Path::new("command line");
    let sources = Sources::new(name, "", texts);
    let mut faults: Vec<Fault> = Vec::new();
    let mut filters = Vec::new();
    let mut shift = 0;
    for text in texts {
        let mut reader = Reader::new(&sources, Origin::CommandLine, text, shift);
        filters.extend(filter(&mut reader, text));
        faults.append(&mut reader.faults);
        shift += text.len() + 1;
    }
    if faults.is_empty() { Ok(filters) } else { Err(ConfigErrors::new(name, faults)) }
}

fn filter(reader: &mut Reader<'_>, text: &str) -> Option<Filter> {
    let Some((key, _)) = text.split_once('=') else {
        let help = "KEY=VALUE, or KEY=a,b for either: schedule=cosine, train.lr=1e-3,1e-4".to_owned();
        reader.fault(format!("`{text}` picks nothing"), 0..text.len(), "no `=`", Some(help));
        return None;
    };
    let span = trim(text, 0..key.len());
    let name = &text[span.clone()];
    let Some(spec) = key_named(name) else {
        reader.fault(format!("there is no key `{name}`"), span, "no such key", Some(help_for(name)));
        return None;
    };
    let pieces = split(text, key.len() + 1);
    let values = pieces.into_iter().map(|piece| Some(plain(&reader.assignment(spec, &readable(text, piece, spec))?.written.value)));
    Some(Filter { spec, values: values.collect::<Option<_>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_text;

    fn grid(text: &str) -> Vec<RunConfig> {
        let inspect = |spec: &crate::data::DataSpec| crate::data::inspect(spec).map_err(|e| e.to_string());
        from_text(Path::new("x.toml"), text, &[], &inspect).unwrap().runs.into_iter().map(|run| run.config).collect()
    }

    fn stored(text: &str) -> Vec<StoredConfig> {
        grid(text).iter().map(|config| StoredConfig::parse(&config.to_toml()).unwrap()).collect()
    }

    #[test]
    fn a_stored_configuration_has_the_value_of_every_key() {
        for config in grid("seeds = [3, 4]\n[grid]\ndiffusion.schedule = ['linear', 'cosine']\nmodel.channels = [[8], [8, 16]]\n") {
            let stored = StoredConfig::parse(&config.to_toml()).unwrap();
            for spec in KEYS {
                assert_eq!(stored.get(spec), Some(&(spec.get)(&config)), "{}", spec.key);
            }
            assert_eq!(stored.entries().count(), KEYS.len());
        }
    }

    #[test]
    fn what_an_older_version_did_not_write_has_its_fixed_default() {
        let stored = StoredConfig::parse("seeds = [1]\n[base.train]\nlr = 0.5\n").unwrap();
        let value = |key: &str| stored.get(keys::find(key).unwrap()).map(plain);
        assert_eq!([value("seed"), value("train.lr"), value("train.dtype")], [Some("1".into()), Some("0.5".into()), Some("f32".into())]);
        assert_eq!(value("train.warmup"), None, "it follows from what is not there");
        assert!(StoredConfig::parse("= 3").is_err());
    }

    #[test]
    fn only_keys_that_tell_runs_apart_are_columns() {
        let columns = |text: &str| {
            let configs = stored(text);
            differing(&configs.iter().collect::<Vec<_>>()).into_iter().map(|spec| spec.key).collect::<Vec<_>>()
        };
        // The warm-up is a tenth of the steps, and val is evaluated at other t where T is small: neither says more.
        let text = "[grid]\ntrain.steps = [100, 500]\ndiffusion.timesteps = [20, 1000]\n[base]\ndiffusion.schedule = 'cosine'\n";
        assert_eq!(columns(text), ["diffusion.timesteps", "train.steps"]);
        assert_eq!(columns("[grid]\ntrain.steps = [100, 500]\ntrain.warmup = [10, 50]\n"), ["train.steps", "train.warmup"]);
        assert_eq!(columns("seeds = [0, 1]\n[grid]\neval.floor = ['on']\n"), ["seed"]);
        assert_eq!(columns("[grid]\ndata.name = ['digits', 'two_moons']\n"), ["data.name"], "network, sizes and fingerprint follow");
        assert_eq!(columns("seeds = [0]\n[base]\ntrain.lr = 1e-3\n"), [""; 0]);
    }

    #[test]
    fn a_filter_takes_any_spelling_of_a_key_and_a_value() {
        let runs = stored("seeds = [0, 1]\n[grid]\ndiffusion.schedule = ['linear', 'cosine']\ntrain.lr = [1e-3, 3e-4]\n");
        let count = |texts: &[&str]| {
            let filters = filters(&texts.iter().map(|t| t.to_string()).collect::<Vec<_>>()).unwrap();
            runs.iter().filter(|run| filters.iter().all(|f| f.meets(run))).count()
        };
        assert_eq!(count(&[]), 8);
        assert_eq!(
            [count(&["diffusion.schedule=cosine"]), count(&["schedule = \"cosine\""]), count(&["schedule=cosine,linear"])],
            [4, 4, 8]
        );
        assert_eq!(
            [count(&["train.lr=0.001"]), count(&["lr=1e-3", "seed=1"]), count(&["lr=1e-3", "lr=3e-4"]), count(&["timesteps=7"])],
            [4, 2, 0, 0]
        );
    }

    #[test]
    fn a_filter_that_means_nothing_is_an_error_with_help() {
        let said = |text: &str| {
            let errors = filters(&[text.to_owned()]).unwrap_err();
            let fault = &errors.faults()[0];
            format!("{} | {}", fault.message, fault.help.as_deref().unwrap_or_default())
        };
        assert_eq!(said("schedule"), "`schedule` picks nothing | KEY=VALUE, or KEY=a,b for either: schedule=cosine, train.lr=1e-3,1e-4");
        assert_eq!(said("diffusion.shedule=cosine"), "there is no key `diffusion.shedule` | did you mean `diffusion.schedule`?");
        assert_eq!(said("schedule=cosin"), "`diffusion.schedule` cannot be \"cosin\" | did you mean \"cosine\"?");
        assert_eq!(said("seed=x"), "`seed` cannot be \"x\" | ");
    }
}
