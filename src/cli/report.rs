//! placeholder
use super::*;
#[derive(clap::Args)]
pub struct ReportArgs {}
pub fn report(_: &ReportArgs) -> Result<i32, CliError> { todo!() }
