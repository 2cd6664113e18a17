//! From an experiment file to complete run configurations.
//!
//! Start at [`load`]: file → [`SweepFile`](sweep_file::SweepFile) (raw, every value with its place) → cells → [`Grid`]
//! of [`RunConfig`]s with identities. What a run can be told stands once, in [`keys::KEYS`]. Nothing below this floor
//! has a default that changes a number. Absent on purpose: data sets (their facts come through a function of the
//! caller), results, the clock, the environment.

pub mod check;
mod combine;
pub mod error;
pub mod expand;
pub mod extends;
pub mod generator;
pub mod grid;
mod identity;
pub mod keys;
mod only;
mod overrides;
pub mod reference;
pub mod run;
pub mod stored;
mod suggest;
pub mod sweep_file;
mod syntax;
pub mod value;

pub use error::{ConfigErrors, Fault};
pub use extends::Extended;
pub use grid::{FileSettings, Grid, GridRun, Inspect, ReportSettings, RunSettings, from_record, from_text, load};
pub use run::*;
pub use stored::StoredConfig;

#[cfg(test)]
mod combine_laws;
#[cfg(test)]
mod combine_mistakes;
#[cfg(test)]
mod combine_tests;
#[cfg(test)]
mod grid_tests;
#[cfg(test)]
mod impossible;
#[cfg(test)]
mod impossible_losses;
#[cfg(test)]
mod mistakes;
