//! The cells of a plan: what differs between them, where their runs stand, and how much room they will take.
//!
//! Start at [`table`].

use super::output::Table;
use super::plan::counts;
use crate::config::{EvalTimesteps, GridRun, RunSettings, keys, value};
use crate::model::ParamLayout;
use crate::record::CASE;
use crate::store::RunState;
use crate::train::LEAST_BETWEEN_CHECKPOINTS;

/// More cells than this are not all printed.
const MOST_CELLS: usize = 100;
/// Bytes of a parameter in a checkpoint: the weights, their average and two moments of four bytes each.
const CHECKPOINT_BYTES: f64 = 16.0;
/// Checkpoints that are kept unless all are.
const KEPT: f64 = 2.0;
/// Bytes of a row of `losses.parquet`: 37 in a run of 40 000 rows.
const ROW_BYTES: f64 = 37.0;

/// One line for each cell, with a column for every key that differs between them; equal columns are left out.
pub fn table(runs: &[&GridRun], states: &[RunState]) -> String {
    let mut cells: Vec<(Vec<&GridRun>, Vec<RunState>)> = Vec::new();
    for (run, state) in runs.iter().zip(states) {
        match cells.last_mut().filter(|(known, _)| known[0].axes == run.axes && known[0].cell == run.cell) {
            Some((runs, states)) => {
                runs.push(run);
                states.push(*state);
            }
            None => cells.push((vec![run], vec![*state])),
        }
    }
    let case = |run: &GridRun| run.axes.iter().find(|(key, _)| key == CASE).map(|(_, name)| name.clone());
    let cased = runs.iter().any(|run| case(run).is_some());
    let differing = differing(runs);
    let mut head: Vec<&str> = if cased { vec!["case"] } else { Vec::new() };
    head.extend(differing.iter().map(|spec| keys::label(spec)));
    head.extend(["state", if cells.iter().any(|(runs, _)| runs.len() > 1) { "runs, by seed" } else { "run" }]);
    let mut table = Table::new(&head);
    for (runs, states) in cells.iter().take(MOST_CELLS) {
        let mut row: Vec<String> = if cased { vec![case(runs[0]).unwrap_or_else(|| "–".to_owned())] } else { Vec::new() };
        row.extend(differing.iter().map(|spec| value::plain(&(spec.get)(&runs[0].config))));
        let state = counts(states.iter().copied());
        row.push(if runs.len() == 1 { state.trim_start_matches("1 ").to_owned() } else { state });
        row.push(runs.iter().map(|run| run.id.to_string()).collect::<Vec<_>>().join(" "));
        table.row(row);
    }
    let mut text = table.render("  ");
    if cells.len() > MOST_CELLS {
        text += &format!("  … {} more cells; --json has all\n", cells.len() - MOST_CELLS);
    }
    text
}

/// The keys that some cell sets for itself and that are not the same in all, in the order in which they appear.
fn differing(runs: &[&GridRun]) -> Vec<&'static keys::KeySpec<crate::config::RunConfig>> {
    let mut own: Vec<&str> = Vec::new();
    for key in runs.iter().flat_map(|run| &run.own) {
        if !own.contains(key) {
            own.push(key);
        }
    }
    let value = |spec: &keys::KeySpec<_>, run: &GridRun| (spec.get)(&run.config);
    own.into_iter().filter_map(keys::find).filter(|spec| runs.iter().any(|run| value(spec, run) != value(spec, runs[0]))).collect()
}

/// Bytes that a run leaves behind: its checkpoints and its losses.
pub fn bytes(run: &GridRun, layout: &ParamLayout, settings: &RunSettings) -> f64 {
    let config = &run.config;
    let (steps, every) = (f64::from(config.train.steps), f64::from(config.log.every));
    let between = if settings.checkpoint_every == 0 { LEAST_BETWEEN_CHECKPOINTS } else { settings.checkpoint_every };
    let checkpoints = if settings.keep { (steps / f64::from(between)).ceil() } else { KEPT };
    let t = f64::from(config.diffusion.timesteps);
    // Distinct timesteps of a window that draws them with replacement.
    let of_window = t * -(-every.min(steps) * f64::from(config.train.batch_size) / t).exp_m1();
    let of_val = match config.eval.timesteps {
        EvalTimesteps::All => t,
        EvalTimesteps::Strided(k) => f64::from(k),
    };
    let evaluations = 1.0 + f64::from(config.train.steps.checked_div(config.eval.every).unwrap_or(0));
    let rows = (steps / every).ceil() * of_window + evaluations * (of_val + 1.0) + t + 1.0;
    checkpoints * CHECKPOINT_BYTES * layout.total() as f64 + ROW_BYTES * rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::inspect_data;
    use crate::config;
    use std::path::Path;

    fn grid(text: &str) -> config::Grid {
        config::from_text(Path::new("x.toml"), text, &[], &inspect_data).unwrap()
    }

    #[test]
    fn only_what_differs_has_a_column_and_seeds_share_a_line() {
        let text = "seeds = [0, 1]\n[base]\ntrain.steps = 5\n[[case]]\nname = 'a'\nloss = 'vlb'\ntrain.lr = 1e-3\n[[case]]\nname = 'b'\nloss = 'vlb'\ndiffusion.schedule = 'cosine'";
        let grid = grid(text);
        let runs: Vec<&GridRun> = grid.runs.iter().collect();
        let states = [RunState::Done, RunState::Pending, RunState::Pending, RunState::Pending];
        let ids: Vec<String> = runs.iter().map(|run| run.id.to_string()).collect();
        let expected = format!(
            "  case  schedule  state          runs, by seed\n  a     linear    1 done, 1 new  {} {}\n  b     cosine    2 new          {} {}\n",
            ids[0], ids[1], ids[2], ids[3]
        );
        assert_eq!(table(&runs, &states), expected, "loss is the same, and 1e-3 is the default of the other's lr");
    }

    #[test]
    fn a_run_takes_the_room_that_one_was_seen_to_take() {
        // 4000 steps of batch 32 at T = 1000, logged every 100: 2 × 2 736 448 bytes of checkpoints and 1 484 600 of losses.
        let text = "[base]\ndata = 'digits'\ndiffusion.schedule = 'cosine'\ntrain = { steps = 4000, batch_size = 32 }\nmodel = { channels = [16, 32], layers_per_block = 1 }\neval.every = 400";
        let grid = grid(text);
        let run = &grid.runs[0];
        let model = crate::model::Model::new(&run.config.model, run.info.shape, 1).unwrap();
        let estimate = bytes(run, model.layout(), &grid.run);
        let seen = 2.0 * 2_736_448.0 + 1_484_600.0;
        assert!((estimate / seen - 1.0).abs() < 0.05, "{estimate} against {seen}");
        let all = bytes(run, model.layout(), &RunSettings { keep: true, ..grid.run.clone() });
        assert!((all - estimate - 6.0 * 16.0 * model.layout().total() as f64).abs() < 1.0, "8 checkpoints in place of 2");
    }
}
