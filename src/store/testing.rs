//! Small stand-ins for the unit tests of the store and of the sweep.

use super::{Manifest, Provenance, RunDir, SCHEMA, Status, Volatile};
use crate::record::{Evaluation, Split, Weights};

/// A run folder that does not exist yet, inside a temporary one.
pub(crate) fn run_dir() -> (tempfile::TempDir, RunDir) {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::at(&dir.path().join("runs/linear-s0-r0123456789ab")).unwrap();
    (dir, run)
}

pub(crate) fn evaluation(step: i64, bits_per_dim: f64) -> Evaluation {
    Evaluation {
        split: Split::Test,
        weights: Weights::Ema,
        step,
        images: 4,
        timesteps: 20,
        draws: 1,
        bits_per_dim,
        bits_per_dim_se: 0.125,
        prior: 0.01,
        kl: bits_per_dim - 0.02,
        decoder: 0.01,
        eps_mse: 0.1,
        n_nonfinite: 0,
        timestep_se: None,
        floor: None,
        samples: None,
    }
}

pub(crate) fn manifest(run: &RunDir, status: Status) -> Manifest {
    Manifest {
        schema: SCHEMA,
        run_id: run.id().to_string(),
        slug: run.slug().to_string(),
        status,
        reason: None,
        step: 60,
        steps: 60,
        first_nonfinite_step: None,
        parameters: 12,
        evaluations: vec![evaluation(60, 3.25)],
        files: Default::default(),
        provenance: Provenance::default(),
        volatile: Volatile::default(),
    }
}
