//! `data import`, `data info`, `data list`.

use super::output::{Table, duration, print};
use super::{CliError, exit};
use crate::data::{self, Encoding, ImportOptions};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::time::Instant;

#[derive(Subcommand)]
pub enum DataCommand {
    /// Turn IDX files (MNIST, Fashion-MNIST), a folder of images, CIFAR-10 or .npy into one HDF5 file.
    Import(ImportArgs),
    /// Show what an HDF5 file holds and how it would be used.
    Info {
        /// An HDF5 file.
        file: PathBuf,
    },
    /// List the built-in data sets.
    List,
}

#[derive(clap::Args)]
pub struct ImportArgs {
    /// An IDX file or a folder of them, a folder of images (sub-folders are labels), a CIFAR-10 folder, or a .npy file.
    source: PathBuf,
    /// The HDF5 file to write.
    out: PathBuf,
    /// Test images, where they are not found beside the source.
    #[arg(long, value_name = "PATH")]
    test: Option<PathBuf>,
    /// Crop to the middle square and resize to this many pixels (folders of images).
    #[arg(long, value_name = "PIXELS")]
    size: Option<u32>,
    /// Convert colour images to grey.
    #[arg(long)]
    grayscale: bool,
    /// Overwrite the output.
    #[arg(long)]
    force: bool,
}

pub fn run(command: &DataCommand) -> Result<i32, CliError> {
    match command {
        DataCommand::Import(args) => import(args)?,
        DataCommand::Info { file } => info(file)?,
        DataCommand::List => list(),
    }
    Ok(exit::DONE)
}

fn import(args: &ImportArgs) -> Result<(), CliError> {
    let started = Instant::now();
    // Hidden by itself where standard error is no terminal.
    let bar = ProgressBar::no_length()
        .with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} images  {eta} left").expect("a fixed template is well formed"));
    let options = ImportOptions {
        source: args.source.clone(),
        test_source: args.test.clone(),
        out: args.out.clone(),
        size: args.size,
        grayscale: args.grayscale,
        force: args.force,
    };
    let summary = data::import(&options, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let summary = summary?;
    let splits: Vec<String> = [(summary.train, "train"), (summary.val, "val"), (summary.test, "test")]
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, split)| format!("{n} {split}"))
        .collect();
    let mut notes = String::new();
    if summary.classes > 0 {
        notes += &format!(", {} classes", summary.classes);
    }
    if summary.skipped > 0 {
        notes += &format!("; {} files that are no pictures were passed over", summary.skipped);
    }
    print(&format!(
        "{}: {} images of {} from {}{notes}\n{:.1} MB in {}; use it with `data.path = \"{}\"`\n",
        summary.out.display(),
        splits.join(" + "),
        summary.shape,
        summary.format,
        summary.bytes as f64 / 1e6,
        duration(started.elapsed().as_secs_f64()),
        summary.out.display()
    ));
    Ok(())
}

fn info(file: &std::path::Path) -> Result<(), CliError> {
    let info = data::describe_file(file)?;
    let mut text = format!("{}: {:.1} MB\n", info.path.display(), info.bytes as f64 / 1e6);
    for (name, value) in &info.attributes {
        text += &format!("  {name} = {value}\n");
    }
    let mut table = Table::new(&["array", ">shape", "type", "storage", "attributes"]);
    for array in &info.arrays {
        let shape: Vec<String> = array.shape.iter().map(usize::to_string).collect();
        let attributes: Vec<String> = array.attributes.iter().map(|(n, v)| format!("{n} = {v}")).collect();
        let chunks = array.chunks.as_ref().map(|c| format!("chunks {}", c.iter().map(usize::to_string).collect::<Vec<_>>().join(" × ")));
        let storage: Vec<String> = chunks.into_iter().chain(array.filters.clone()).collect();
        let storage = if storage.is_empty() { "contiguous".to_owned() } else { storage.join(", ") };
        table.row(vec![array.name.clone(), shape.join(" × "), array.dtype.clone(), storage, attributes.join(", ")]);
    }
    text += &format!("\n{}\n", table.render("  "));
    match &info.usage {
        Ok(usage) => {
            text += &format!("As data: {} images of {} levels, read as {}\n", usage.shape, usage.levels, usage.layout);
            text += &format!("  train {}\n  val   {}\n  test  {}\n", usage.train, usage.val, usage.test);
        }
        Err(reason) => text += &format!("It cannot be used as data: {reason}\n"),
    }
    print(&text);
    Ok(())
}

fn list() {
    let mut table = Table::new(&["name", ">shape", ">levels", ">train", ">val", ">test", "license", "title and credit"]);
    for b in data::builtins() {
        let levels = match b.encoding {
            Encoding::Discrete { levels } => levels.to_string(),
            Encoding::Continuous => "real".to_owned(),
        };
        table.row(vec![
            b.name.to_owned(),
            b.shape.to_string(),
            levels,
            b.train.to_string(),
            b.val.to_string(),
            b.test.to_string(),
            b.license.to_owned(),
            format!("{}; {}", b.title, b.credit),
        ]);
    }
    print(&table.render(""));
}
