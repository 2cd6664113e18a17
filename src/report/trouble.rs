//! Runs that ended without a result: what became of each, where, and why.
//!
//! Start at [`table`]. A diverged run is a result, a failed one is a fault of the machine or the program; neither is in any
//! mean, and neither is left out.

use super::study::{RunView, Study};
use super::tables;
use super::text::{count, decimals_for, escape, fixed, grouped, prose};
use crate::store::RunState;

/// The runs that diverged or failed, in the order of the file.
pub fn runs<'s, 'a>(study: &'s Study<'a>) -> Vec<(&'s str, &'s RunView<'a>)> {
    let ended = |r: &&RunView| matches!(r.data.state, RunState::Diverged | RunState::Failed);
    study.cells.iter().flat_map(|c| c.runs.iter().filter(ended).map(|r| (c.label.as_str(), r))).collect()
}

/// One row for each of [`runs`]; empty where there are none.
pub fn table(study: &Study) -> String {
    let rows: Vec<Vec<String>> = runs(study).into_iter().map(|(label, run)| row(label, run)).collect();
    if rows.is_empty() {
        return String::new();
    }
    let columns = [("cell", false), ("seed", true), ("state", false), ("step", true), ("where", false), ("why", false), ("id", false)];
    tables::table("trouble", "Runs that diverged or failed: they are in no mean and in no interval", &columns, Some(0), &rows)
}

fn row(label: &str, run: &RunView) -> Vec<String> {
    let manifest = run.data.manifest.as_ref();
    let step = manifest.map_or("–".into(), |m| format!("{} of {}", grouped(i64::from(m.step)), grouped(i64::from(m.steps))));
    let reason = manifest.and_then(|m| m.reason.as_deref()).or(run.data.problem.as_deref()).unwrap_or("its record does not say why");
    vec![
        prose(label),
        run.seed().to_string(),
        format!("<span class=\"state {0}\">{0}</span>", run.data.state),
        step,
        format!("<small>{}</small>", escape(&place(run))),
        why(reason),
        format!("<code>{}</code>", escape(&run.data.run.run_id)),
    ]
}

/// The step and the timesteps at which numbers stopped being finite, and the last bound there was.
fn place(run: &RunView) -> String {
    let mut parts = Vec::new();
    if let Some(step) = run.data.manifest.as_ref().and_then(|m| m.first_nonfinite_step) {
        parts.push(format!("first non-finite value at step {}", grouped(i64::from(step))));
    }
    if let Some(bad) = run.data.not_finite {
        let at = if bad.first_t == bad.last_t { format!("t = {}", bad.first_t) } else { format!("t = {} to {}", bad.first_t, bad.last_t) };
        parts.push(format!("{} not finite, at {at}", count(bad.samples as usize, "sample")));
    }
    match run.val.iter().rev().find(|(_, bits)| bits.is_finite()) {
        Some((step, bits)) => {
            let bits = fixed(*bits, decimals_for(*bits, f64::NAN));
            parts.push(format!("last finite validation bound {bits} bits/dim at step {}", grouped(*step)));
        }
        None => parts.push("no evaluation before".into()),
    }
    parts.join("; ")
}

/// The first line of a reason, the rest behind it.
fn why(reason: &str) -> String {
    match reason.trim_end().split_once('\n') {
        None => format!("<small>{}</small>", escape(reason.trim_end())),
        Some((first, rest)) => {
            format!("<details class=\"paper\"><summary><small>{}</small></summary><pre>{}</pre></details>", escape(first), escape(rest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Split, Weights};
    use crate::report::input::NotFinite;
    use crate::report::synthetic;

    #[test]
    fn a_diverged_run_tells_the_step_the_timesteps_and_its_last_bound() {
        let mut data = synthetic::sweep();
        assert!(table(&Study::new(&data)).is_empty());
        let run = &mut data.runs[4];
        run.state = RunState::Diverged;
        let manifest = run.manifest.as_mut().unwrap();
        (manifest.first_nonfinite_step, manifest.step, manifest.reason) = (Some(1234), 1233, Some("the gradient was not finite".into()));
        assert_eq!(NotFinite::of(&run.losses), None);
        for t in [7, 90] {
            synthetic::push(&mut run.losses, Split::Train, Weights::Raw, 1234, t, 0, f64::NAN, f64::NAN);
            *run.losses.n_nonfinite.last_mut().unwrap() = 2;
        }
        run.not_finite = NotFinite::of(&run.losses);
        let html = table(&Study::new(&data));
        for part in
            ["step 1234", "4 samples not finite, at t = 7 to 90", "1233 of 4000", "the gradient was not finite", "bits/dim at step 4000"]
        {
            assert!(html.contains(part), "`{part}` is missing in\n{html}");
        }
    }

    #[test]
    fn a_failed_run_tells_its_reason_and_keeps_its_log_behind_it() {
        let mut data = synthetic::sweep();
        data.runs[1].state = RunState::Failed;
        data.runs[1].evaluations.clear();
        data.runs[1].manifest.as_mut().unwrap().reason = Some("the worker ended with exit code 1; its log ends:\n<no> memory".into());
        data.runs[2].state = RunState::Failed;
        data.runs[2].manifest = None;
        let html = table(&Study::new(&data));
        assert!(html.contains("exit code 1; its log ends:</small></summary><pre>&lt;no&gt; memory</pre>"), "{html}");
        assert!(html.contains("no evaluation before") && html.contains("its record does not say why"), "{html}");
        assert_eq!(html.matches("<tr>").count(), 3);
    }
}
