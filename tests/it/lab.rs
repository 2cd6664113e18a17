//! The program, run as a user runs it, in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A folder with experiment files and results in it.
pub struct Lab {
    dir: TempDir,
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// An experiment of two runs that takes a second.
pub const TINY: &str = r#"
description = "Does it work?"
[base]
diffusion.timesteps = 30
model = { channels = [8, 16], layers_per_block = 1, norm_groups = 4, mid_attention = false, dropout = 0.1 }
train = { steps = 24, batch_size = 12, micro_batch = 4, ema = 0.9 }
log.every = 5
eval = { every = 10, images = 6, timesteps = "strided:6", test_images = 6 }
sample.count = 4
[grid]
diffusion.schedule = ["linear_scaled", "cosine"]
[run]
checkpoint_every = 7
"#;

/// A run of some tens of milliseconds that writes all that runs write: windows, evaluations, samples, three checkpoints.
pub const DROP: &str = r#"
[base]
data = "swiss_roll"
diffusion = { timesteps = 6, schedule = "cosine" }
model.channels = [8, 8]
train = { steps = 7, batch_size = 16, timestep_sampler = "loss_second_moment" }
log.every = 2
eval = { every = 5, images = 4, test_images = 4, floor = "off" }
sample = { count = 4, every = 4 }
[run]
checkpoint_every = 2
"#;

impl Lab {
    pub fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ddpm-lab"));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null()).env("NO_COLOR", "1").env("COLUMNS", "120");
        command
    }

    pub fn run(&self, args: &[&str]) -> Said {
        let output = self.command(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Runs and demands exit code 0.
    pub fn ok(&self, args: &[&str]) -> String {
        let said = self.run(args);
        assert_eq!(said.code, 0, "{args:?}: {said:?}");
        said.out
    }

    /// The run folders, by name.
    pub fn runs(&self) -> Vec<PathBuf> {
        let mut runs: Vec<PathBuf> = std::fs::read_dir(self.path("results/runs")).unwrap().map(|e| e.unwrap().path()).collect();
        runs.sort();
        runs
    }

    /// Folder name and bytes of every file of that name among the runs.
    pub fn bytes_of(&self, file: &str) -> Vec<(String, Vec<u8>)> {
        self.runs().iter().map(|run| (name(run), std::fs::read(run.join(file)).unwrap())).collect()
    }
}

pub fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}
