//! Laws of the grid language, over random experiments: the cells are those of a plain enumeration, the arithmetic counts
//! them, and every way of saying the same gives the same runs.

use super::grid_tests::{CHOICES, valid};
use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

/// Keys of [`CHOICES`] with their values as spelled.
type Axes = Vec<(&'static str, &'static [&'static str])>;

/// For each of the first six keys of [`CHOICES`] up to three values.
fn axes() -> impl Strategy<Value = Axes> {
    proptest::collection::vec(0_usize..=3, 6).prop_map(|sizes| {
        CHOICES.iter().zip(sizes).filter(|(_, n)| *n > 0).map(|((key, values), n)| (*key, &values[..n.min(values.len())])).collect()
    })
}

fn table(name: &str, axes: &[(&str, &[&str])]) -> String {
    let lines: Vec<String> = axes.iter().map(|(key, values)| format!("{key} = [{}]\n", values.join(", "))).collect();
    format!("{name}\n{}", lines.concat())
}

fn ids(text: &str) -> Vec<RunId> {
    valid(text, &[]).runs.into_iter().map(|run| run.id).collect()
}

/// The identity of a cell written by itself.
fn alone(cell: &[(&str, &str)]) -> RunId {
    let lines: Vec<String> = cell.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    ids(&format!("[base]\n{}", lines.concat())).remove(0)
}

/// Every combination, the last axis fastest.
fn product<'a>(axes: &[(&'a str, &'a [&'a str])]) -> Vec<Vec<(&'a str, &'a str)>> {
    let mut cells = vec![Vec::new()];
    for (key, values) in axes {
        cells = cells.iter().flat_map(|cell| values.iter().map(move |value| [cell.as_slice(), &[(*key, *value)]].concat())).collect();
    }
    cells
}

/// What the left side of an arithmetic comes to: sums of products with parentheses.
fn evaluate(words: &str) -> i64 {
    fn sum(text: &mut &str) -> i64 {
        let mut total = terms(text);
        loop {
            *text = text.trim_start();
            let Some(sign) = text.chars().next().filter(|c| "+−".contains(*c)) else { return total };
            *text = &text[sign.len_utf8()..];
            let term = terms(text);
            total += if sign == '+' { term } else { -term };
        }
    }
    fn terms(text: &mut &str) -> i64 {
        let mut total = atom(text);
        while let Some(rest) = text.trim_start().strip_prefix('×') {
            *text = rest;
            total *= atom(text);
        }
        total
    }
    fn atom(text: &mut &str) -> i64 {
        *text = text.trim_start();
        if let Some(rest) = text.strip_prefix('(') {
            *text = rest;
            let inner = sum(text);
            *text = text.trim_start().strip_prefix(')').unwrap();
            return inner;
        }
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, rest) = text.split_at(digits);
        *text = rest;
        number.parse().unwrap()
    }
    let mut rest = words;
    let total = sum(&mut rest);
    assert!(rest.is_empty(), "{words}: {rest}");
    total
}

/// Checks the arithmetic against itself and gives its numbers of cells, runs and merged runs.
fn counted(grid: &Grid, seeds: usize) -> (usize, usize, usize) {
    let words = &grid.arithmetic;
    let (sum, rest) = words.split_once(" = ").filter(|(sum, _)| !sum.contains("cell")).unwrap_or(("", words));
    let number = |text: &str| text.split(' ').next().unwrap().parse::<usize>().unwrap();
    let cells = number(rest);
    assert!(sum.is_empty() || evaluate(sum) == cells as i64, "{words}");
    assert!(rest.contains(&format!(" × {seeds} seed")), "{words}");
    let runs = number(rest.rsplit_once(" = ").unwrap().1);
    let merged = rest.split_once('(').map_or(0, |(_, text)| number(text));
    assert_eq!((cells * seeds - merged, runs), (runs, grid.runs.len()), "{words}");
    (cells, runs, merged)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn exclusions_leave_the_product_less_what_they_name_in_its_order(axes in axes(), seeds in 1_usize..3, picks in proptest::collection::vec(any::<prop::sample::Index>(), 2)) {
        prop_assume!(!axes.is_empty());
        let mut text = format!("seeds = {:?}\n{}", (0..seeds).collect::<Vec<_>>(), table("[grid]", &axes));
        // The first exclusion names one value of one axis, the second of two.
        let mut excluded: Vec<Vec<(&str, &str)>> = Vec::new();
        for (n, pick) in picks.iter().enumerate() {
            let start = pick.index(axes.len());
            let named: Vec<_> = axes.iter().cycle().skip(start).take((n + 1).min(axes.len())).map(|(key, values)| (*key, values[pick.index(values.len())])).collect();
            text += "[[exclude]]\n";
            named.iter().for_each(|(key, value)| text += &format!("{key} = {value}\n"));
            excluded.push(named);
        }
        let left: Vec<_> = product(&axes).into_iter().filter(|cell| !excluded.iter().any(|e| e.iter().all(|pair| cell.contains(pair)))).collect();
        if left.is_empty() {
            prop_assert!(super::grid_tests::grid(&text, &[]).is_err());
        } else {
            let grid = valid(&text, &[]);
            prop_assert_eq!(counted(&grid, seeds), (left.len(), left.len() * seeds, 0));
            let got: Vec<RunId> = grid.runs.iter().step_by(seeds).map(|run| run.id.clone()).collect();
            prop_assert_eq!(got, left.iter().map(|cell| alone(cell)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_zip_is_the_diagonal_of_the_product_and_the_same_as_its_points_written_as_cases(axes in axes()) {
        let length = axes.iter().map(|(_, values)| values.len()).min().unwrap_or(0);
        prop_assume!(length > 0);
        let cut: Axes = axes.iter().map(|(key, values)| (*key, &values[..length])).collect();
        let zipped = ids(&table("[[zip]]", &cut));
        let diagonal: Vec<RunId> = (0..length).map(|i| alone(&cut.iter().map(|(key, values)| (*key, values[i])).collect::<Vec<_>>())).collect();
        prop_assert_eq!(&zipped, &diagonal);
        let cases: Vec<String> = (0..length)
            .map(|i| format!("[[case]]\nname = \"c{i}\"\n{}", cut.iter().map(|(key, values)| format!("{key} = {}\n", values[i])).collect::<String>()))
            .collect();
        prop_assert_eq!(&ids(&cases.concat()), &diagonal);
        // Zips of one axis each are the product.
        let apart: String = cut.iter().map(|axis| table("[[zip]]", &[*axis])).collect();
        prop_assert_eq!(ids(&apart), ids(&table("[grid]", &cut)));
    }

    #[test]
    fn blocks_are_the_union_of_what_each_says_alone(first in axes(), second in axes(), shared in 0_usize..3) {
        // What stands outside the blocks multiplies both.
        let outside: Axes = vec![("data.flip", &["true", "false"][..]), ("diffusion.variance", &["'fixed_small'", "'fixed_large'"][..])].into_iter().take(shared).collect();
        let block = |axes: &Axes| -> String {
            let (set, grid): (Vec<_>, Vec<_>) = axes.iter().copied().partition(|(_, values)| values.len() == 1);
            let constants: String = set.iter().map(|(key, values)| format!("{key} = {}\n", values[0])).collect();
            format!("[[block]]\n[block.set]\n{constants}{}", table("[block.grid]", &grid))
        };
        let alone = |axes: &Axes| ids(&format!("{}{}", table("[grid]", &outside), block(axes)));
        let both = valid(&format!("{}{}{}", table("[grid]", &outside), block(&first), block(&second)), &[]);
        let mut seen = HashSet::new();
        let union: Vec<RunId> = alone(&first).into_iter().chain(alone(&second)).filter(|id| seen.insert(id.clone())).collect();
        prop_assert_eq!(both.runs.iter().map(|run| run.id.clone()).collect::<Vec<_>>(), union);
        let of = |axes: &Axes| product(axes).len() * product(&outside).len();
        prop_assert_eq!(counted(&both, 1).0, of(&first) + of(&second));
        // One block is as good as none.
        let flat = table("[grid]", &[outside.clone(), first.clone()].concat());
        prop_assert_eq!(alone(&first).into_iter().collect::<HashSet<_>>(), ids(&flat).into_iter().collect::<HashSet<_>>());
    }

    #[test]
    fn a_part_and_its_rest_are_the_whole(axes in axes(), pick in any::<prop::sample::Index>()) {
        prop_assume!(!axes.is_empty());
        let (key, values) = axes[pick.index(axes.len())];
        let whole = valid(&table("[grid]", &axes), &[]);
        let mut picked = 0;
        for value in values {
            let mut part = whole.clone();
            part.pick(&[format!("{key}={value}")]).unwrap();
            picked += part.runs.iter().filter(|run| run.picked).count();
        }
        prop_assert_eq!(picked, whole.runs.len());
    }
}
