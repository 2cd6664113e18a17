//! "Did you mean …?": the nearest key or name to what was written.
//!
//! Start at [`for_key`]. Near is meant in three ways, tried in turn: the same last part in another section, the name
//! another program uses for it, few edits.

use super::grid::FileSettings;
use super::keys::{FILE_KEYS, KEYS, KeySpec};
use super::run::RunConfig;
use super::value::either;

/// Below this similarity a suggestion is more likely to mislead than to help.
const NEAR: f64 = 0.72;

/// The nearest of `names`, where one is near.
pub fn nearest<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase();
    let mut best: Option<(f64, &str)> = None;
    for name in names {
        let score = similarity(&written, name);
        if score >= NEAR && best.is_none_or(|(known, _)| score > known) {
            best = Some((score, name));
        }
    }
    best.map(|(_, name)| name)
}

/// One if equal; edits weigh by length, a common beginning counts in favour.
fn similarity(a: &str, b: &str) -> f64 {
    let edits = strsim::normalized_damerau_levenshtein(a, b);
    // "sched" for "schedule": many edits, but clearly meant.
    let prefix = if a.chars().count() >= 4 && b.starts_with(a) { NEAR } else { 0.0 };
    edits.max(prefix)
}

/// A line of help for an unknown full key.
pub fn for_key(full: &str, settings: bool) -> String {
    let near = if settings { near_keys::<FileSettings>(full, FILE_KEYS) } else { run_keys(full) };
    if !near.is_empty() {
        return format!("did you mean {}?", either(&near));
    }
    keys_of(full.rsplit_once('.').map_or("", |(section, _)| section))
}

/// Near keys of a run's configuration, in backquotes.
pub fn run_keys(full: &str) -> Vec<String> {
    near_keys::<RunConfig>(full, KEYS)
}

fn near_keys<S>(full: &str, table: &[KeySpec<S>]) -> Vec<String> {
    let (section, leaf) = full.rsplit_once('.').unwrap_or(("", full));
    let quoted = |specs: Vec<&KeySpec<S>>| specs.into_iter().map(|spec| format!("`{}`", spec.key)).collect::<Vec<_>>();
    let candidates = || table.iter().filter(|spec| !spec.section().is_empty());
    // The section is right: only its own keys are meant, by another name or by few edits.
    let own: Vec<_> = candidates().filter(|spec| spec.section() == section).collect();
    if let Some(spec) = own.iter().find(|spec| spec.also.iter().any(|name| name.eq_ignore_ascii_case(leaf))) {
        return quoted(vec![spec]);
    }
    if let Some(near) = nearest(leaf, own.iter().map(|spec| spec.leaf())) {
        return quoted(own.into_iter().filter(|spec| spec.leaf() == near).collect());
    }
    let by_leaf: Vec<_> = candidates().filter(|spec| spec.leaf().eq_ignore_ascii_case(leaf)).collect();
    if !by_leaf.is_empty() {
        return quoted(by_leaf);
    }
    let by_other_name: Vec<_> = candidates().filter(|spec| spec.also.iter().any(|name| name.eq_ignore_ascii_case(leaf))).collect();
    if !by_other_name.is_empty() {
        return quoted(by_other_name);
    }
    let by_edits = nearest(full, candidates().map(|spec| spec.key));
    let by_edits = by_edits.or_else(|| {
        let leaf = nearest(leaf, candidates().map(|spec| spec.leaf()))?;
        candidates().find(|spec| spec.leaf() == leaf).map(|spec| spec.key)
    });
    by_edits.map(|key| format!("`{key}`")).into_iter().collect()
}

/// What may stand in a section; the sections where there is none of that name.
pub fn keys_of(section: &str) -> String {
    let leaves = KEYS.iter().filter(|s| s.section() == section).map(|s| s.leaf());
    let leaves: Vec<&str> = leaves.chain(FILE_KEYS.iter().filter(|s| s.section() == section).map(|s| s.leaf())).collect();
    if section.is_empty() || leaves.is_empty() {
        let mut sections: Vec<&str> = KEYS.iter().map(|s| s.section()).filter(|s| !s.is_empty()).collect();
        sections.dedup();
        return format!("the sections are {}", sections.join(", "));
    }
    format!("`{section}` has {}", leaves.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_other_programs_names_and_missing_sections_lead_to_the_key() {
        for (written, expected) in [
            ("train.lrr", "did you mean `train.lr`?"),
            ("diffusion.shedule", "did you mean `diffusion.schedule`?"),
            ("train.learning_rate", "did you mean `train.lr`?"),
            ("learning_rate", "did you mean `train.lr`?"),
            ("lr", "did you mean `train.lr`?"),
            ("schedule", "did you mean `diffusion.schedule`?"),
            ("T", "did you mean `diffusion.timesteps`?"),
            ("diffusion.beta_schedule", "did you mean `diffusion.schedule`?"),
            ("difusion.schedule", "did you mean `diffusion.schedule`?"),
            ("every", "did you mean `log.every`, `eval.every` or `sample.every`?"),
            ("loss.type", "did you mean `loss.variant`?"),
        ] {
            assert_eq!(for_key(written, false), expected, "{written}");
        }
    }

    #[test]
    fn what_resembles_nothing_gets_a_list_and_no_guess() {
        assert!(for_key("train.zzzzzz", false).starts_with("`train` has steps, batch_size"));
        assert!(for_key("qqqq", false).starts_with("the sections are data, model"));
        assert_eq!(nearest("fast", ["linear", "cosine"].into_iter()), None);
    }
}
