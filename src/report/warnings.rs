//! What a reader must know before trusting a report: mixed versions, unequal runs, missing ones.

use super::study::Study;
use super::tables::revision;
use super::text::{count, list};
use crate::data::Encoding;
use crate::record::{Evaluation, Split};
use crate::store::RunState;
use std::collections::BTreeSet;

/// Unreadable runs that are told one by one.
const MOST_TOLD: usize = 3;

/// In order of weight; empty where all is as it should be.
pub fn warnings(study: &Study) -> Vec<String> {
    let mut all = Vec::new();
    let runs = &study.data.runs;
    let in_state = |s: RunState| runs.iter().filter(|r| r.state == s).count();
    let unread: Vec<(&str, &str)> = runs.iter().filter_map(|r| Some((r.run.run_id.as_str(), r.problem.as_deref()?))).collect();
    for (id, problem) in unread.iter().take(MOST_TOLD) {
        all.push(format!("Run {id} could not be read in full: {problem}."));
    }
    if let more @ 1.. = unread.len().saturating_sub(MOST_TOLD) {
        all.push(format!("{} more could not be read in full; the table of runs says why.", count(more, "run")));
    }
    let open = in_state(RunState::Pending) + in_state(RunState::Running) + in_state(RunState::Resumable);
    if open > 0 {
        all.push(format!("The sweep is not complete: {} of {} still to be done. The answer may change.", count(open, "run"), runs.len()));
    }
    let ended = [(RunState::Failed, "failed"), (RunState::Diverged, "diverged")].map(|(state, word)| (in_state(state), word));
    let ended: Vec<String> = ended.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{} {word}", count(*n, "run"))).collect();
    if !ended.is_empty() {
        all.push(format!("{}, in no mean: “Runs without a result” tells where and why.", list(&ended)));
    }
    let results: Vec<&Evaluation> = study.cells.iter().flat_map(|c| c.runs.iter().filter_map(|r| r.result)).collect();
    let not_finite = runs.iter().filter(|r| r.state == RunState::Done).count().saturating_sub(results.len());
    if not_finite > 0 && study.metric.is_some() {
        all.push(format!(
            "{} finished without a finite bound of the kind reported here and {} left out.",
            count(not_finite, "run"),
            if not_finite == 1 { "is" } else { "are" }
        ));
    }
    let dropped: u64 = results.iter().map(|e| e.n_nonfinite).sum();
    if dropped > 0 {
        all.push(format!("{dropped} non-finite values were dropped in the final evaluations: their means are of what was left."));
    }
    if study.metric.is_some_and(|m| m.split == Split::Val) {
        all.push("No run has a test evaluation yet: cells are judged on validation images.".into());
    }
    let finished = || study.cells.iter().flat_map(|c| c.finished());
    all.extend(unequal(study));
    mixed(
        &mut all,
        "The final evaluations differ in images, timesteps or noise draws",
        results.iter().map(|e| format!("{} images, {} draws", e.images, e.draws)),
    );
    let manifests = || finished().filter_map(|r| r.data.manifest.as_ref()).map(|m| &m.provenance);
    mixed(
        &mut all,
        "The runs were made on different kinds of device",
        manifests().map(|p| p.device.split(':').next().unwrap_or_default().to_string()),
    );
    mixed(&mut all, "The runs were made with different instruction sets", manifests().map(|p| p.instruction_set.clone()));
    if manifests().any(|p| p.git_dirty == Some(true)) {
        all.push("Some runs were made from a working tree with uncommitted changes.".into());
    }
    let continuous = runs.iter().any(|r| r.encoding == Some(Encoding::Continuous));
    if continuous && runs.iter().any(|r| matches!(r.encoding, Some(Encoding::Discrete { .. }))) {
        all.push(
            "The sweep mixes continuous and discrete data: differential and ordinary bits must not be compared with each other.".into(),
        );
    } else {
        let data = |r: &super::RunData| {
            if r.data.fingerprint.is_empty() { r.data.name.clone() } else { r.data.fingerprint.chars().take(8).collect() }
        };
        mixed(&mut all, "The sweep has more than one data set, and bounds of different data do not compare", runs.iter().map(data));
    }
    all
}

/// What makes the lines of one figure unlike each other although no axis says so: unequal lengths of training, other code.
/// It stands among the warnings, and below every figure that draws results.
pub fn unequal(study: &Study) -> Vec<String> {
    let mut all = Vec::new();
    let finished = || study.cells.iter().flat_map(|c| c.finished());
    let steps_vary = study.cells.iter().flat_map(|c| &c.axes).any(|(key, _)| key == "train.steps");
    let words = if steps_vary {
        "The cells were trained for unequal numbers of steps, as the experiment asks"
    } else {
        "The runs were trained for unequal numbers of steps"
    };
    mixed(&mut all, words, finished().filter_map(|r| Some(r.result?.step)).collect::<BTreeSet<i64>>().iter().map(i64::to_string));
    let manifests = || finished().filter_map(|r| r.data.manifest.as_ref()).map(|m| &m.provenance);
    mixed(
        &mut all,
        "The runs were made by different versions of the program",
        manifests().map(|p| format!("{} at {}", p.version, revision(p))),
    );
    all
}

/// A warning where there is more than one value.
fn mixed(all: &mut Vec<String>, words: &str, values: impl Iterator<Item = String>) {
    let mut distinct: Vec<String> = Vec::new();
    for value in values {
        if !distinct.contains(&value) {
            distinct.push(value);
        }
    }
    let values = distinct;
    if values.len() > 1 {
        all.push(format!("{words}: {}.", list(&values)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::synthetic;

    #[test]
    fn a_clean_sweep_has_none() {
        assert_eq!(warnings(&Study::new(&synthetic::sweep())), Vec::<String>::new());
    }

    #[test]
    fn mixed_versions_unequal_steps_and_missing_runs_are_said() {
        let mut data = synthetic::sweep();
        data.runs[0].manifest.as_mut().unwrap().provenance.version = "0.2.0".into();
        for e in &mut data.runs[1].evaluations {
            e.step += 1;
        }
        data.runs[2].state = RunState::Diverged;
        data.runs[3].state = RunState::Running;
        data.runs[4].evaluations.last_mut().unwrap().n_nonfinite = 3;
        data.runs[5].encoding = Some(Encoding::Continuous);
        let said = warnings(&Study::new(&data)).join("\n");
        for words in [
            "different versions",
            "unequal numbers of steps: 4000 and 4001",
            "1 run diverged, in no mean",
            "1 run of 24",
            "3 non-finite",
            "mixes continuous",
        ] {
            assert!(said.contains(words), "{words:?} is missing in\n{said}");
        }
        assert_eq!(unequal(&Study::new(&data)).len(), 2, "below the figures, what is of the figures");
    }

    #[test]
    fn many_unreadable_runs_do_not_bury_the_answer() {
        let mut data = synthetic::sweep();
        data.runs.iter_mut().for_each(|r| r.problem = Some("torn".into()));
        let said = warnings(&Study::new(&data));
        assert_eq!(said.len(), MOST_TOLD + 1, "{said:?}");
        assert!(said[MOST_TOLD].starts_with("21 runs more"), "{said:?}");
    }
}
