//! `ls` and `show`: what is in the store.

use super::output::{Table, duration, print};
use super::{CliError, StoreArgs, exit};
use crate::named::NamedEnum;
use crate::record::{Evaluation, Split};
use crate::store::{Manifest, RunDir, RunState};

#[derive(clap::Args)]
pub struct LsArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Only runs in this state: pending, running, resumable, done, diverged or failed.
    #[arg(long)]
    state: Option<RunState>,
    /// Only runs of this sweep.
    #[arg(long)]
    sweep: Option<String>,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub struct ShowArgs {
    /// A run id, a unique prefix of one, a run folder, or `latest`.
    run: String,
    #[command(flatten)]
    store: StoreArgs,
    /// The manifest as JSON.
    #[arg(long)]
    json: bool,
}

/// The evaluation that a run is judged by: the final one on test, else the last on val.
pub fn final_evaluation(manifest: &Manifest) -> Option<&Evaluation> {
    let of = |split| manifest.evaluations.iter().rev().find(move |e| e.split == split);
    of(Split::Test).or_else(|| of(Split::Val))
}

/// `3.1234 ± 0.0321`.
pub fn bits(evaluation: &Evaluation) -> String {
    format!("{:.4} ± {:.4}", evaluation.bits_per_dim, evaluation.bits_per_dim_se)
}

pub fn ls(args: &LsArgs) -> Result<i32, CliError> {
    let store = args.store.existing()?;
    let runs: Vec<RunDir> = match &args.sweep {
        None => store.runs()?,
        Some(name) => {
            let by_id = store.runs_by_id()?;
            store.read_sweep(name)?.runs.iter().filter_map(|r| by_id.get(&r.run_id).cloned()).collect()
        }
    };
    let mut table = Table::new(&["run", "state", ">step", ">bits/dim ± s.e.", "on", ">SWD", ">time", "configuration"]);
    let (mut count, mut text) = (0, String::new());
    for run in &runs {
        // A damaged run is listed as such, so that one torn file does not hide the others.
        let (state, manifest, note) = match run.state().and_then(|s| Ok((s.name().to_owned(), run.manifest()?))) {
            Ok((state, manifest)) => (state, manifest, None),
            Err(error) => ("damaged".to_owned(), None, Some(error.to_string())),
        };
        if args.state.is_some_and(|w| w.name() != state) {
            continue;
        }
        count += 1;
        let result = manifest.as_ref().and_then(final_evaluation);
        if args.json {
            let line = serde_json::json!({
                "run_id": run.id(), "slug": run.slug(), "state": state, "note": note,
                "step": manifest.as_ref().map(|m| m.step), "steps": manifest.as_ref().map(|m| m.steps),
                "reason": manifest.as_ref().and_then(|m| m.reason.clone()),
                "evaluation": result, "seconds": manifest.as_ref().map(|m| m.volatile.seconds),
            });
            text += &format!("{line}\n");
            continue;
        }
        let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "–".to_owned());
        table.row(vec![
            run.id().to_owned(),
            state,
            or_dash(manifest.as_ref().map(|m| format!("{}/{}", m.step, m.steps))),
            or_dash(result.map(bits)),
            or_dash(result.map(|e| e.split.to_string())),
            or_dash(result.and_then(|e| Some(format!("{:.4}", e.samples.as_ref()?.sliced_wasserstein)))),
            or_dash(manifest.as_ref().map(|m| duration(m.volatile.seconds))),
            run.slug().to_owned(),
        ]);
    }
    if count == 0 {
        return Err(CliError::NothingMatched {
            message: format!("no run in {} matches", store.root().display()),
            help: Some("`ddpm-lab ls` without a filter lists all runs".to_owned()),
        });
    }
    if !args.json {
        text = table.render("");
    }
    print(&text);
    Ok(exit::DONE)
}

pub fn show(args: &ShowArgs) -> Result<i32, CliError> {
    let store = args.store.existing()?;
    let run = store.find(&args.run)?;
    let manifest = run.manifest()?;
    if args.json {
        let text = serde_json::to_string_pretty(&manifest).map_err(|e| CliError::Internal(e.to_string()))?;
        print(&(text + "\n"));
        return Ok(exit::DONE);
    }
    let mut text = format!("{}  {}\n{}\n", run.id(), run.slug(), run.path().display());
    text += &format!("state: {}", run.state()?);
    if let Some(m) = &manifest {
        text += &format!(", step {} of {}, {} parameters\n", m.step, m.steps, m.parameters);
        if let Some(reason) = &m.reason {
            text += &format!("reason: {reason}\n");
        }
        let p = &m.provenance;
        let revision = p.git_revision.as_deref().map_or("no git revision", |r| &r[..r.len().min(12)]);
        let dirty = if p.git_dirty == Some(true) { " (with uncommitted changes)" } else { "" };
        text += &format!(
            "made by ddpm-lab {}, {revision}{dirty}, on {} ({}, {} thread(s)), in {} over {} attempt(s)\n",
            p.version,
            p.device,
            p.instruction_set,
            p.threads,
            duration(m.volatile.seconds),
            m.volatile.attempts
        );
    } else {
        text.push('\n');
    }
    let evaluations = run.read_evaluations()?;
    if !evaluations.is_empty() {
        let mut table = Table::new(&["split", ">step", ">bits/dim ± s.e.", ">decoder", ">KL", ">prior", ">eps-MSE", ">images", ">t"]);
        for e in &evaluations {
            table.row(vec![
                e.split.to_string(),
                e.step.to_string(),
                bits(e),
                format!("{:.4}", e.decoder),
                format!("{:.4}", e.kl),
                format!("{:.1e}", e.prior),
                format!("{:.4}", e.eps_mse),
                e.images.to_string(),
                e.timesteps.to_string(),
            ]);
        }
        text += &format!("\n{}", table.render("  "));
    }
    if let Some(e) = manifest.as_ref().and_then(final_evaluation) {
        if let Some(floor) = &e.floor {
            text += &format!(
                "\n  The exact denoiser of this data has {:.4} bits/dim on the same draws: {:.4} ± {:.4} are left to gain.\n",
                floor.bits_per_dim,
                e.bits_per_dim - floor.bits_per_dim,
                floor.excess_se
            );
        }
        if let Some(q) = &e.samples {
            text += &format!(
                "\n  {} samples against {} test examples: sliced Wasserstein {:.4} ± {:.4} (as many training examples: {:.4}), MMD² {:.5} ± {:.5}\n",
                q.samples, q.data, q.sliced_wasserstein, q.sliced_wasserstein_se, q.sliced_wasserstein_of_data, q.mmd2, q.mmd2_se
            );
        }
    }
    text += &format!("\n{}", run.config_text()?);
    print(&text);
    Ok(exit::DONE)
}
