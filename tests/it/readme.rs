//! The README, held against the program: its TOML is planned, its tables are the program's own, its commands exist.

use crate::lab::Lab;
use ddpm_lab::config::keys;
use ddpm_lab::store::columns;
use std::path::Path;

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The contents of every fenced block of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned()).collect()
}

#[test]
fn every_experiment_in_the_readme_plans() {
    let experiments = blocks(&read("README.md"), "toml");
    assert!(experiments.len() >= 2);
    for (i, text) in experiments.iter().enumerate() {
        let lab = Lab::new();
        lab.write("readme.toml", text);
        let plan = lab.ok(&["plan", "readme.toml"]);
        assert!(plan.contains("runs"), "block {i}: {plan}");
    }
}

#[test]
fn the_plan_in_the_readme_is_what_plan_prints() {
    let readme = read("README.md");
    let (before, after) = readme.split_once("`ddpm-lab plan FILE` expands it").unwrap();
    let lab = Lab::new();
    lab.write("readme.toml", blocks(before, "toml").last().unwrap());
    let plan = lab.ok(&["plan", "readme.toml"]);
    let shown = blocks(after, "text").remove(0);
    assert!(shown.lines().count() >= 10);
    let mut rest = plan.as_str();
    for line in shown.lines().filter(|line| *line != "…") {
        let at = rest.find(line.trim_end()).unwrap_or_else(|| panic!("`{line}` is not, or not here, in\n{plan}"));
        rest = &rest[at + line.len()..];
    }
}

/// The mistakes whose messages the README shows.
const MISTAKES: &str = r#"[base]
train.learning_rate = 1e-3
diffusion = { schedule = "cosine", timesteps = 400
train.steps = 500

[[zip]]
model.dropout = [0, 0.1, 0.2]
train.batch_size = [32, 64]
"#;

const MORE_MISTAKES: &str = r#"description = "Seven more mistakes."
seed = [0, 1]

[base]
data.name = "digit"
diffusion.timesteps = 0
train.lr = "1e-3"

[grid]
diffusion.schedule = ["linear", "cosin"]
loss.variant = "vlb"
train.lr = { logspace = [1e-4, 1e-2] }
"#;

#[test]
fn the_messages_in_the_readme_are_those_that_are_printed() {
    let lab = Lab::new();
    let readme = read("README.md");
    let shown = blocks(readme.split_once("Everything is checked before anything starts").unwrap().1, "text");
    for ((file, text), shown) in [("bad.toml", MISTAKES), ("worse.toml", MORE_MISTAKES)].into_iter().zip(shown) {
        lab.write(file, text);
        let said = lab.run(&["plan", file]);
        assert_eq!(said.code, 2);
        let trimmed = |text: &str| text.lines().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect::<Vec<_>>();
        assert_eq!(trimmed(&shown), trimmed(&said.err), "\n{}", said.err);
    }
}

#[test]
fn the_readme_lists_every_key_as_the_program_knows_it() {
    let readme = read("README.md");
    let listed = readme.split("<!-- keys: ").nth(1).unwrap().split_once("-->\n").unwrap().1.split("<!-- end of keys -->").next().unwrap();
    let known = keys::reference().replace("\n### ", "\n#### ");
    let known = known.trim_start();
    if std::env::var_os("UPDATE_README").is_some() && listed != known {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"), readme.replace(listed, known)).unwrap();
        return;
    }
    let differs = listed.lines().zip(known.lines()).find(|(a, b)| a != b);
    assert!(listed == known, "UPDATE_README=1 ./just test writes the table; first difference, README against program: {differs:#?}");
}

#[test]
fn the_readme_names_every_column_of_the_parquet() {
    let readme = read("README.md");
    let table = readme.split("The columns, in order:").nth(1).unwrap().split("\n\n`Σ").next().unwrap();
    let mut from = 0;
    for column in columns() {
        let name = format!("`{}`", column.name);
        let at = table[from..].find(&name).unwrap_or_else(|| panic!("{name} is missing or out of order"));
        from += at + name.len();
    }
    let named: usize =
        table.lines().filter_map(|row| row.strip_prefix("| `")?.split(" | ").next()).map(|cell| cell.matches("` `").count() + 1).sum();
    assert_eq!(named, columns().len(), "the README names a column that is not there");
}

#[test]
fn every_command_of_the_readme_exists() {
    let readme = read("README.md");
    let justfile = read("justfile");
    let lab = Lab::new();
    let mut seen = 0;
    for line in blocks(&readme, "sh").iter().flat_map(|b| b.lines()) {
        let words: Vec<&str> = line.split('#').next().unwrap().split_whitespace().collect();
        let ["./just", recipe, rest @ ..] = words.as_slice() else { panic!("`{line}` is no ./just command") };
        assert!(justfile.lines().any(|l| l.starts_with(&format!("{recipe} "))), "no recipe `{recipe}`");
        let command: Vec<&str> = match *recipe {
            "test" => continue,
            "lab" => rest.to_vec(),
            other => [&[other], rest].concat(),
        };
        // `--help` with the arguments that come before the paths: an unknown sub-command or option is an error.
        let kept: Vec<&str> = command.iter().copied().take_while(|w| !w.contains('/')).collect();
        let options: Vec<&str> = command.iter().copied().filter(|w| w.starts_with("--")).collect();
        let help = lab.ok(&[&kept[..], &["--help"]].concat());
        assert!(options.iter().all(|o| help.contains(o)), "{line}: {help}");
        for file in command.iter().filter(|w| w.starts_with("experiments/")) {
            assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(file).is_file(), "{file}");
        }
        seen += 1;
    }
    assert!(seen >= 6, "{seen} commands");
}
