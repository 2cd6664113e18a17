//! placeholder
use super::*;
#[derive(clap::Args)]
pub struct SweepArgs {}
pub fn sweep(_: &SweepArgs) -> Result<i32, CliError> { todo!() }
