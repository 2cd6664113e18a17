//! Colours and dashes: one look for a cell in every figure.
//!
//! Start at [`Looks::of`]. The first axis of a sweep chooses the colour, the others the dash, as long as both can be
//! told apart; else each cell gets a colour and dash of its own. Colours are those of Okabe and Ito (2008), which
//! people with any of the common colour blindnesses can tell apart, without yellow, which vanishes on white; the values
//! of a numeric axis get an ordered ramp.

use super::draw::{Entry, Legend, Rgb, Stroke, Swatch};
use super::study::{axis_title, shown};

pub const PALETTE: [Rgb; 8] = [
    [0x00, 0x72, 0xB2],
    [0xD5, 0x5E, 0x00],
    [0x00, 0x9E, 0x73],
    [0xCC, 0x79, 0xA7],
    [0xE6, 0x9F, 0x00],
    [0x56, 0xB4, 0xE9],
    [0x33, 0x33, 0x33],
    [0x8C, 0x6D, 0x46],
];

/// Patterns that stay apart at the widths we draw.
pub const DASHES: [&[f64]; 5] = [&[], &[8.0, 4.0], &[2.0, 3.5], &[11.0, 3.5, 2.0, 3.5], &[16.0, 5.0]];

/// Dark blue to green: lighter step by step as viridis is, but no lighter than a line on white, or on a dark page, can be.
const RAMP: [Rgb; 5] = [[0x44, 0x01, 0x54], [0x41, 0x44, 0x87], [0x2A, 0x78, 0x8E], [0x1F, 0x97, 0x6E], [0x6F, 0xA8, 0x1F]];

/// viridis at every eighth.
const HEAT: [Rgb; 9] = [
    [0x44, 0x01, 0x54],
    [0x47, 0x2C, 0x7A],
    [0x3B, 0x51, 0x8B],
    [0x2C, 0x71, 0x8E],
    [0x21, 0x90, 0x8D],
    [0x27, 0xAD, 0x81],
    [0x5C, 0xC8, 0x63],
    [0xAA, 0xDC, 0x32],
    [0xFD, 0xE7, 0x25],
];

pub const GREY: Rgb = [0x66, 0x66, 0x66];

/// How a cell is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    pub color: Rgb,
    pub dash: &'static [f64],
}

impl Look {
    pub fn line(self, width: f64) -> Stroke {
        Stroke { color: self.color, width, dash: self.dash }
    }
}

/// `color` mixed with white: 1 keeps it, 0 is white.
pub fn tint(color: Rgb, strength: f64) -> Rgb {
    color.map(|c| (255.0 - (255.0 - f64::from(c)) * strength).round() as u8)
}

/// The colour at `x` in 0..=1 of the ordered ramp.
pub fn ramp(x: f64) -> Rgb {
    between(&RAMP, x)
}

/// The same of areas, up to the yellow that a line on white cannot have.
pub fn heat(x: f64) -> Rgb {
    between(&HEAT, x)
}

fn between(colors: &[Rgb], x: f64) -> Rgb {
    let place = x.clamp(0.0, 1.0) * (colors.len() - 1) as f64;
    let i = (place as usize).min(colors.len() - 2);
    let f = place - i as f64;
    std::array::from_fn(|c| (f64::from(colors[i][c]) * (1.0 - f) + f64::from(colors[i + 1][c]) * f).round() as u8)
}

/// The looks of all cells, and the legend that explains them.
#[derive(Clone, Debug)]
pub struct Looks {
    pub cells: Vec<Look>,
    pub legend: Legend,
}

impl Looks {
    /// `cells` are the axes of each cell (only those that differ somewhere) with its label.
    pub fn of(cells: &[(Vec<(String, String)>, String)]) -> Self {
        let keys: Vec<&str> = cells.first().map_or(Vec::new(), |(axes, _)| axes.iter().map(|(k, _)| k.as_str()).collect());
        let uniform = cells.iter().all(|(axes, _)| axes.iter().map(|(k, _)| k.as_str()).eq(keys.iter().copied()));
        if uniform && keys.len() >= 2 {
            // Dashes for everything but the first axis, or else for one axis alone, from the last on.
            let all_but_first: Vec<usize> = (1..keys.len()).collect();
            let alone = (1..keys.len()).rev().map(|i| vec![i]);
            if let Some(looks) = std::iter::once(all_but_first).chain(alone).find_map(|dashed| Self::by_axes(cells, &keys, &dashed)) {
                return looks;
            }
        }
        let numeric = uniform && keys.len() == 1 && is_numeric(cells.iter().map(|(axes, _)| axes[0].1.as_str()));
        let looks: Vec<Look> = (0..cells.len())
            .map(|i| {
                if numeric && cells.len() > 2 {
                    Look { color: ramp(i as f64 / (cells.len() - 1) as f64), dash: DASHES[0] }
                } else {
                    Look { color: PALETTE[i % PALETTE.len()], dash: DASHES[i / PALETTE.len() % DASHES.len()] }
                }
            })
            .collect();
        let entries = cells
            .iter()
            .zip(&looks)
            .map(|((_, label), look)| Entry { label: label.clone(), swatch: Swatch::Line(look.line(3.0)) })
            .collect();
        Self { cells: looks, legend: Legend { entries } }
    }

    /// Dashes for the axes in `dashed`, colours for the others; `None` where there are more values than can be told apart.
    fn by_axes(cells: &[(Vec<(String, String)>, String)], keys: &[&str], dashed: &[usize]) -> Option<Self> {
        let part = |axes: &[(String, String)], of_dash: bool| {
            let chosen = axes.iter().enumerate().filter(|(i, _)| dashed.contains(i) == of_dash);
            chosen.map(|(_, (_, v))| shown(v)).collect::<Vec<_>>().join(" · ")
        };
        let distinct = |of_dash: bool| {
            let mut values: Vec<String> = Vec::new();
            for (axes, _) in cells {
                let value = part(axes, of_dash);
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            values
        };
        let (hues, dashes) = (distinct(false), distinct(true));
        let numeric = hues.len() > 2 && is_numeric(hues.iter().map(String::as_str));
        if dashes.len() > DASHES.len() || (hues.len() > PALETTE.len() && !numeric) {
            return None;
        }
        let color = |i: usize| if numeric { ramp(i as f64 / (hues.len() - 1) as f64) } else { PALETTE[i] };
        let position = |list: &[String], item: &str| list.iter().position(|x| x == item).unwrap_or(0);
        let looks = cells
            .iter()
            .map(|(axes, _)| Look { color: color(position(&hues, &part(axes, false))), dash: DASHES[position(&dashes, &part(axes, true))] })
            .collect();
        let title = |of_dash: bool| {
            let chosen = keys.iter().enumerate().filter(|(i, _)| dashed.contains(i) == of_dash);
            Entry { label: format!("{}:", chosen.map(|(_, k)| axis_title(k)).collect::<Vec<_>>().join(" · ")), swatch: Swatch::None }
        };
        let mut entries = vec![title(false)];
        entries
            .extend(hues.iter().enumerate().map(|(i, v)| Entry { label: v.clone(), swatch: Swatch::Line(Stroke::solid(color(i), 3.0)) }));
        entries.push(title(true));
        let grey = |dash| Swatch::Line(Stroke { color: GREY, width: 3.0, dash });
        entries.extend(dashes.iter().zip(DASHES).map(|(v, dash)| Entry { label: v.clone(), swatch: grey(dash) }));
        Some(Self { cells: looks, legend: Legend { entries } })
    }
}

pub fn is_numeric<'a>(values: impl IntoIterator<Item = &'a str>) -> bool {
    values.into_iter().all(|v| number(v).is_some())
}

/// The number that an axis value is, underscores as TOML allows them.
pub fn number(value: &str) -> Option<f64> {
    value.replace('_', "").parse::<f64>().ok().filter(|x| x.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(first: &[&str], second: &[&str]) -> Vec<(Vec<(String, String)>, String)> {
        first
            .iter()
            .flat_map(|a| {
                second.iter().map(move |b| {
                    (vec![("diffusion.schedule".into(), (*a).into()), ("loss.variant".into(), (*b).into())], format!("{a} {b}"))
                })
            })
            .collect()
    }

    #[test]
    fn two_axes_use_colour_for_the_first_and_dash_for_the_second() {
        let looks = Looks::of(&cells(&["linear", "cosine"], &["simple", "vlb"]));
        assert_eq!(looks.cells[0].color, looks.cells[1].color);
        assert_eq!(looks.cells[0].dash, looks.cells[2].dash);
        assert_ne!(looks.cells[0].color, looks.cells[2].color);
        assert_ne!(looks.cells[0].dash, looks.cells[1].dash);
        assert_eq!(looks.legend.entries.len(), 2 + 2 + 2);
    }

    #[test]
    fn three_axes_give_the_last_one_the_dash_where_the_others_are_too_many_for_it() {
        let mut three = Vec::new();
        for lr in ["1e-4", "2e-4", "3e-4", "4e-4", "5e-4"] {
            for (axes, label) in cells(&["a", "b", "c", "d"], &["simple", "vlb"]) {
                three.push((
                    axes.into_iter().chain([("train.lr".into(), lr.into())]).collect::<Vec<(String, String)>>(),
                    format!("{label} {lr}"),
                ));
            }
        }
        let looks = Looks::of(&three);
        assert_eq!(looks.legend.entries.len(), 1 + 8 + 1 + 5);
        for (i, a) in looks.cells.iter().enumerate() {
            assert!(!looks.cells[..i].contains(a), "cell {i} repeats a look");
        }
    }

    #[test]
    fn no_two_of_forty_cells_look_alike() {
        let values: Vec<String> = (0..40).map(|i| format!("v{i}")).collect();
        let looks = Looks::of(&cells(&values.iter().map(String::as_str).collect::<Vec<_>>(), &["x"]));
        for (i, a) in looks.cells.iter().enumerate() {
            assert!(!looks.cells[..i].contains(a), "cell {i} repeats a look");
        }
    }

    #[test]
    fn every_colour_has_contrast_with_white() {
        // Relative luminance of WCAG 2; 2 : 1 at least for lines three pixels wide, the values of a number 2.5 : 1.
        let channel = |c: u8| {
            let x = f64::from(c) / 255.0;
            if x <= 0.04045 { x / 12.92 } else { ((x + 0.055) / 1.055).powf(2.4) }
        };
        for (c, least) in PALETTE.iter().map(|c| (c, 2.0)).chain(RAMP.iter().map(|c| (c, 2.5))) {
            let luminance = 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
            assert!(1.05 / (luminance + 0.05) > least, "{c:?}");
        }
    }
}
