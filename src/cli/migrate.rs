//! `migrate`: brings a store of an older layout to this program's.

use super::output::print;
use super::runs::many;
use super::{CliError, StoreArgs, exit};
use crate::store::{MIGRATIONS, Migrated, SCHEMA};

#[derive(clap::Args)]
pub struct MigrateArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
}

pub fn migrate(args: &MigrateArgs) -> Result<i32, CliError> {
    let store = args.store.existing()?;
    let done = store.migrate(MIGRATIONS, SCHEMA, args.dry_run)?;
    print(&words(&done, args.dry_run));
    Ok(if done.held.is_empty() { exit::DONE } else { exit::RESUMABLE })
}

fn words(done: &Migrated, dry: bool) -> String {
    let mut text = String::new();
    for (path, from) in &done.migrated {
        text += &format!("{}: layout {from} → {SCHEMA}\n", path.display());
    }
    for run in &done.held {
        text += &format!("{}: somebody is running it; migrate again when it is done\n", run.path().display());
    }
    for path in &done.unreadable {
        text += &format!("{}: it says no layout; `ddpm-lab doctor` has more\n", path.display());
    }
    let would = if dry { "would be brought" } else { "brought" };
    text + &match done.migrated.len() as u64 {
        0 if done.held.is_empty() => {
            format!("Nothing to migrate: {} of layout {SCHEMA}, which is this program's.\n", many(done.current as u64, "record"))
        }
        n => format!("{} {would} to layout {SCHEMA}; {} had it.\n", many(n, "record"), done.current),
    }
}
