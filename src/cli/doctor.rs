//! `doctor`: is the store what it says? Every finding with what will become of it.

use super::output::print;
use super::runs::many;
use super::{CliError, StoreArgs, exit};
use crate::store::{Examination, Severity};
use crate::units::bytes as size;
use serde_json::json;

#[derive(clap::Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Delete the damaged files of finished runs, with the records that vouch for them: the next sweep makes them again.
    #[arg(long)]
    repair: bool,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

pub fn doctor(args: &DoctorArgs) -> Result<i32, CliError> {
    let store = args.store.existing()?;
    let repaired = if args.repair { store.repair()? } else { Vec::new() };
    let seen = store.examine()?;
    let text = if args.json {
        let findings = seen.findings.iter().map(|f| json!({ "severity": f.severity, "path": f.path, "what": f.what, "then": f.then }));
        let object = json!({
            "sound": seen.is_sound(), "runs": seen.runs, "running": seen.running, "files": seen.files, "bytes": seen.bytes,
            "repaired": repaired, "findings": findings.collect::<Vec<_>>(),
        });
        format!("{object:#}\n")
    } else {
        let mut text = String::new();
        if args.repair {
            text += &match repaired.as_slice() {
                [] => "Nothing to repair.\n".to_owned(),
                runs => format!(
                    "{}: the next sweep that wants them makes them again: {}\n",
                    many(runs.len() as u64, "damaged run"),
                    runs.join(", ")
                ),
            };
        }
        text + &words(&seen)
    };
    print(&text);
    Ok(if seen.is_sound() { exit::DONE } else { exit::SOME_FAILED })
}

fn words(seen: &Examination) -> String {
    let mut text = String::new();
    for finding in &seen.findings {
        let word = match finding.severity {
            Severity::Fault => "fault: ",
            Severity::Remark => "",
        };
        text += &format!("{word}{}: {}\n    {}\n", finding.path.display(), finding.what, finding.then);
    }
    let of = |severity| seen.findings.iter().filter(|f| f.severity == severity).count() as u64;
    let running = if seen.running > 0 { format!(" ({} running)", seen.running) } else { String::new() };
    text + &format!(
        "{}{running}, {} read, {}: {}{}\n",
        many(seen.runs as u64, "run"),
        many(seen.files as u64, "file"),
        size(seen.bytes as f64),
        if seen.is_sound() { "sound".to_owned() } else { many(of(Severity::Fault), "fault") },
        match of(Severity::Remark) {
            0 => String::new(),
            n => format!(", {}", many(n, "remark")),
        }
    )
}
