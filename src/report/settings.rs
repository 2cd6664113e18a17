//! How the cells are configured: the keys in which they differ, and each one in full.
//!
//! Start at [`differences`]. What is compared is the complete configuration of a cell's first run, so that a difference shows which
//! no axis names: a default that depends on another key, or a constant of one of two sweeps.

use super::study::{Cell, Study, shown};
use super::tables;
use super::text::{escape, prose, value_of};
use crate::config::RunConfig;
use crate::config::keys::KEYS;
use crate::config::value::plain;
use std::path::Path;

/// The configuration of the first run of a cell that has one.
fn of(cell: &Cell) -> Option<RunConfig> {
    cell.runs.iter().find_map(|run| RunConfig::from_toml(Path::new("config.toml"), &run.data.config_text).ok())
}

/// The keys, but the seed, with more than one value among the cells; and the values, one row for each cell.
pub fn differing(study: &Study) -> (Vec<&'static str>, Vec<Option<Vec<String>>>) {
    let configs: Vec<Option<RunConfig>> = study.cells.iter().map(of).collect();
    let known = || configs.iter().flatten();
    let differs = |key: &str| {
        let mut values = known().map(|c| c.get(key));
        let first = values.next();
        key != "seed" && values.any(|v| Some(v) != first)
    };
    let keys: Vec<&'static str> = KEYS.iter().map(|spec| spec.key).filter(|key| differs(key)).collect();
    let values = |c: &RunConfig| keys.iter().map(|key| c.get(key).map_or("–".into(), |v| shown(&plain(&v)))).collect();
    let rows = configs.iter().map(|c| c.as_ref().map(values)).collect();
    (keys, rows)
}

/// The table of [`differing`], or a sentence where there is nothing to put into one.
pub fn differences(study: &Study) -> String {
    let (keys, rows) = differing(study);
    let known = rows.iter().flatten().count();
    if known == 0 {
        return "<p class=\"note\">No run has left a configuration that can be read.</p>\n".into();
    }
    if keys.is_empty() {
        return "<p class=\"note\">The cells that have begun do not differ in any key but the seed.</p>\n".into();
    }
    let numbers: Vec<bool> = (0..keys.len()).map(|i| rows.iter().flatten().all(|row| value_of(&row[i]).is_some())).collect();
    let columns: Vec<(&str, bool)> = std::iter::once(("cell", false)).chain(keys.iter().copied().zip(numbers)).collect();
    let rows: Vec<Vec<String>> = study
        .cells
        .iter()
        .zip(rows)
        .map(|(cell, values)| {
            let name = format!("{}{}", tables::swatch(cell.look), prose(&cell.label));
            let values = values.unwrap_or_else(|| vec!["not begun".into(); keys.len()]);
            std::iter::once(name).chain(values.iter().map(|v| escape(v))).collect()
        })
        .collect();
    tables::table(
        "differences",
        "The keys in which the configurations of the cells differ, defaults included; in every other key, but the seed, they are equal",
        &columns,
        Some(0),
        &rows,
    )
}

/// The configuration of each cell as its first run has it, folded.
pub fn in_full(study: &Study) -> String {
    let mut out = String::from("<details><summary>Full configurations, one for each cell</summary>\n");
    for cell in &study.cells {
        let run = cell.runs.iter().find(|run| !run.data.config_text.is_empty()).unwrap_or(&cell.runs[0]);
        let text = if run.data.config_text.is_empty() { "(not written yet)" } else { run.data.config_text.trim_end() };
        out += &format!("<details><summary>{}</summary>\n<pre tabindex=\"0\">{}</pre></details>\n", escape(&cell.label), escape(text));
    }
    out + "<p class=\"note\">The runs of a cell differ in their seed alone; each has its own in <code>results/runs/…/config.toml</code>.</p>\n</details>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_text;
    use crate::data::{DataSpec, inspect};
    use crate::report::synthetic;

    #[test]
    fn only_keys_that_differ_are_shown_with_what_no_axis_names() {
        let inspect = |spec: &DataSpec| inspect(spec).map_err(|e| e.to_string());
        // The default of eval.timesteps depends on T.
        let text = "[base]\ndata.name = \"swiss_roll\"\nmodel.kind = \"mlp\"\n[grid]\ndiffusion.timesteps = [40, 100]\n";
        let grid = from_text(Path::new("x.toml"), text, &[], &inspect).unwrap();
        let mut data = synthetic::sweep();
        data.runs.truncate(9);
        for (i, run) in data.runs.iter_mut().enumerate() {
            run.config_text = if i < 6 { grid.runs[i / 3].config.to_toml() } else { String::new() };
        }
        let study = Study::new(&data);
        let (keys, rows) = differing(&study);
        assert_eq!(keys, ["diffusion.timesteps", "eval.timesteps"]);
        assert_eq!(rows[0].as_deref().unwrap(), ["40", "all"]);
        assert_eq!(rows[1].as_ref().unwrap()[0], "100");
        assert_eq!(rows[2], None);
        let html = differences(&study);
        assert!(html.contains("data-v=\"100\"") && html.contains("not begun") && !html.contains("train.lr"), "{html}");
        assert!(in_full(&study).contains("(not written yet)"));
    }

    #[test]
    fn configurations_that_cannot_be_read_are_said() {
        assert!(differences(&Study::new(&synthetic::sweep())).contains("can be read"));
    }
}
