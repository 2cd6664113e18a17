//! Many runs at a glance: what `ls`, `runs.jsonl` and whoever else asks about a whole store need of each.
//!
//! Start at [`list`]. Nothing fails as a whole: a run that cannot be read is listed with the reason.

use super::run_dir::RunDir;
use super::{Manifest, RunState};
use crate::config::StoredConfig;
use rayon::prelude::*;

/// A run as its folder shows it now.
#[derive(Clone, Debug)]
pub struct Listed {
    pub dir: RunDir,
    /// `None` where its record cannot be read, which `problem` explains.
    pub state: Option<RunState>,
    pub manifest: Option<Manifest>,
    /// `None` before there is any, or where it cannot be read.
    pub config: Option<StoredConfig>,
    pub problem: Option<String>,
}

impl Listed {
    pub fn of(dir: &RunDir) -> Self {
        let mut listed = Self { dir: dir.clone(), state: None, manifest: None, config: None, problem: None };
        let record = dir.is_locked().and_then(|locked| {
            let manifest = dir.manifest()?;
            let state = if locked { RunState::Running } else { dir.state_by(manifest.as_ref())? };
            Ok((state, manifest))
        });
        match record {
            Ok((state, manifest)) => (listed.state, listed.manifest) = (Some(state), manifest),
            Err(error) => listed.problem = Some(error.to_string()),
        }
        listed.config = dir.config_text().ok().and_then(|text| StoredConfig::parse(&text).ok());
        listed
    }

    /// The state in one word.
    pub fn state_name(&self) -> &'static str {
        use crate::named::NamedEnum;
        self.state.map_or(DAMAGED, NamedEnum::name)
    }
}

/// What a run is called whose record cannot be read.
pub const DAMAGED: &str = "damaged";

/// Each of `runs`, in their order, read on every core.
pub fn list(runs: &[RunDir]) -> Vec<Listed> {
    runs.par_iter().map(Listed::of).collect()
}
