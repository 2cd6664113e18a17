//! Running a grid: what is left to do, and one process per run that does it.
//!
//! Start at [`Plan`], then [`execute`]. A run's process tells its parent what it does by JSON lines on its standard
//! output ([`Event`](crate::record::Event)), writes everything else to the run's folder, and stops with a checkpoint
//! when its standard input ends ([`worker`]); so a killed parent stops its children, and a killed child ends one run.
//! Deliberately absent: any state of the sweep itself. Whatever is killed, the folders say what is left.

mod child;
mod duration;
mod execute;
mod lines;
mod outcome;
mod plan;
mod progress;
mod stop;
pub mod worker;

pub use child::WorkerCommand;
pub use duration::{format_duration, parse_duration};
pub use execute::{Options, execute};
pub use outcome::{Failure, Outcome, RunEnd};
pub use plan::{Counts, Plan, PlanEntry, PlannedRun};
pub use progress::{Progress, ProgressMode};
pub use stop::{StopReason, StopRequest};

/// How a worker process says how its run ended.
pub mod exit {
    pub const DONE: i32 = 0;
    /// The loss became non-finite: a result.
    pub const DIVERGED: i32 = 3;
    /// Stopped on request; the checkpoint goes on.
    pub const INTERRUPTED: i32 = 75;
    /// Another process holds the run's lock.
    pub const BUSY: i32 = 76;
}
