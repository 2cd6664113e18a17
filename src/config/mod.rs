//! From an experiment file to complete run configurations.
pub mod run;
pub use run::*;
