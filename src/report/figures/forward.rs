//! The forward process: a few examples under each schedule at chosen t, all with the same noise.

use super::schedules::distinct;
use super::{Drawn, Figure, MARGIN, spread};
use crate::report::ReportError;
use crate::report::draw::fonts::{fitted, text_width};
use crate::report::draw::panel::{GRID, INK, MUTED, TICK_SIZE};
use crate::report::draw::{Anchor, Rgb, Scene, Stroke};
use crate::report::input::ForwardExamples;
use crate::report::study::Study;
use crate::report::text::{Csv, fixed, plain};
use image::RgbImage;
use std::sync::Arc;

/// Columns, as fractions of T; the first is t = 1.
const FRACTIONS: [f64; 9] = [0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0];
/// Standardised coordinates shown of points.
const REACH: f32 = 3.2;
const GAP: f64 = 5.0;
/// The least a column needs: the width of `ᾱ < 0.001`.
const LEAST: f64 = 70.0;
/// The line of a name that stands above its rows.
const NAME: f64 = 24.0;

pub fn draw(study: &Study) -> Result<Drawn, ReportError> {
    let examples = match &study.data.forward {
        Ok(examples) if !examples.examples.is_empty() => examples,
        Ok(_) => return Ok(Drawn::skipped("forward", "the data set has no examples")),
        Err(reason) => return Ok(Drawn::skipped("forward", reason.clone())),
    };
    let lines = distinct(study)?;
    if lines.is_empty() {
        return Ok(Drawn::skipped("forward", "the sweep has no runs"));
    }
    let image = examples.shape.is_image();
    // Fewer examples where there are many schedules: the figure should fit a page.
    let most = match lines.len() {
        1 => 4,
        2 => 3,
        3 | 4 => 2,
        _ => 1,
    };
    let shown = if image { examples.examples.len().min(most) } else { 1 };
    // Names stand above their rows where beside them they would leave too little.
    let widest = lines.iter().map(|l| text_width(&l.label, TICK_SIZE, false)).fold(0.0, f64::max);
    let above = widest > 0.22 * study.width || study.width < 700.0;
    let (labels, name) = if above { (0.0, NAME) } else { (widest + 12.0, 0.0) };
    let room = study.width - 2.0 * MARGIN - labels;
    let columns = spread(FRACTIONS.len(), (room / LEAST) as usize);
    let tile = room / columns.len() as f64 - GAP;
    let tile_height = if image { tile * examples.shape.height as f64 / examples.shape.width as f64 } else { tile };
    let group = name + shown as f64 * (tile_height + GAP) + 24.0;
    let head = 30.0;
    let mut scene = Scene::new(study.width, 2.0 * MARGIN + head + lines.len() as f64 * group);
    let common = lines.iter().all(|l| l.timesteps == lines[0].timesteps);
    for (c, k) in columns.iter().enumerate() {
        let (fraction, x) = (&FRACTIONS[*k], MARGIN + labels + c as f64 * (tile + GAP) + tile / 2.0);
        let words = match (common, c) {
            (true, _) => format!("t = {}", timestep(*fraction, lines[0].timesteps)),
            (false, 0) => "t = 1".into(),
            (false, _) => format!("{}\u{2009}T", fixed(*fraction, 2)),
        };
        scene.text((x, MARGIN + 15.0), &words, TICK_SIZE, INK, Anchor::Middle);
    }
    let mut csv = Csv::new(&["schedule", "timesteps", "t", "alpha_bar"]);
    for (g, line) in lines.iter().enumerate() {
        let top = MARGIN + head + g as f64 * group + name;
        if above {
            let label = fitted(&line.label, TICK_SIZE, false, room);
            scene.text((MARGIN, top - 7.0), &label, TICK_SIZE, INK, Anchor::Start);
        } else {
            let middle = top + (group - 24.0) / 2.0;
            scene.text((MARGIN + labels - 10.0, middle), &line.label, TICK_SIZE, INK, Anchor::End);
        }
        for fraction in FRACTIONS {
            let t = timestep(fraction, line.timesteps);
            csv.row(&[line.kind.to_string(), line.timesteps.to_string(), t.to_string(), plain(line.schedule.alpha_bars[t as usize - 1])]);
        }
        for (c, k) in columns.iter().enumerate() {
            let alpha_bar = line.schedule.alpha_bars[timestep(FRACTIONS[*k], line.timesteps) as usize - 1];
            let x = MARGIN + labels + c as f64 * (tile + GAP);
            for e in 0..shown {
                let y = top + e as f64 * (tile_height + GAP);
                if image {
                    scene.picture((x, y), (tile, tile_height), Arc::new(picture(examples, e, alpha_bar)));
                } else {
                    scatter(&mut scene, examples, alpha_bar, (x, y), tile, line.stroke.color);
                }
                let (r, b) = (x + tile, y + tile_height);
                scene.line(vec![(x, y), (r, y), (r, b), (x, b), (x, y)], Stroke::solid(GRID, 1.0));
            }
            let words = if alpha_bar < 0.001 { "ᾱ < 0.001".into() } else { format!("ᾱ = {}", fixed(alpha_bar, 3)) };
            scene.text((x + tile / 2.0, top + shown as f64 * (tile_height + GAP) + 10.0), &words, 12.0, MUTED, Anchor::Middle);
        }
    }
    let what = if image {
        "Examples, clipped to [−1, 1]"
    } else {
        "Points of the data, standardised coordinates from −3.2 to 3.2 on both axes"
    };
    Ok(Drawn::Figure(Box::new(Figure {
        name: "forward".into(),
        title: "The forward process".into(),
        caption: match examples.redrawn {
            None => format!(
                "{what}: x_t = √ᾱ_t · x₀ + √(1 − ᾱ_t) · ε under each schedule, with the same ε in all rows and columns; ᾱ_t below each column."
            ),
            Some(pi) => format!(
                "{what}: each bit of x_t is 1 with probability ᾱ_t · x₀ + (1 − ᾱ_t) · {pi} under each schedule, by the same uniform number in all rows \
                 and columns; ᾱ_t below each column."
            ),
        },
        csv: csv.finish(),
        more_csv: Vec::new(),
        scene,
    })))
}

fn timestep(fraction: f64, timesteps: u32) -> u32 {
    ((fraction * f64::from(timesteps)).round() as u32).clamp(1, timesteps)
}

fn noisy(examples: &ForwardExamples, index: usize, alpha_bar: f64) -> impl Iterator<Item = f32> {
    let (signal, noise) = (alpha_bar.sqrt() as f32, (1.0 - alpha_bar).sqrt() as f32);
    let redrawn = examples.redrawn;
    examples.examples[index].iter().zip(&examples.noise[index]).map(move |(x, e)| match redrawn {
        None => signal * x + noise * e,
        Some(pi) => {
            // The normal distribution function turns a standard normal into a uniform number.
            let uniform = 0.5 * libm::erfc(-f64::from(*e) / std::f64::consts::SQRT_2);
            let rate = (1.0 - alpha_bar) * pi + if *x > 0.0 { alpha_bar } else { 0.0 };
            if uniform < rate { 1.0 } else { -1.0 }
        }
    })
}

fn picture(examples: &ForwardExamples, index: usize, alpha_bar: f64) -> RgbImage {
    let shape = examples.shape;
    let values: Vec<u8> = noisy(examples, index, alpha_bar).map(|v| ((v.clamp(-1.0, 1.0) + 1.0) * 127.5).round() as u8).collect();
    RgbImage::from_fn(shape.width as u32, shape.height as u32, |x, y| {
        let place = (y as usize * shape.width + x as usize) * shape.channels;
        // Two and four channels have no colours of their own: the first is shown.
        image::Rgb(if shape.channels == 3 { [values[place], values[place + 1], values[place + 2]] } else { [values[place]; 3] })
    })
}

fn scatter(scene: &mut Scene, examples: &ForwardExamples, alpha_bar: f64, (x, y): (f64, f64), size: f64, color: Rgb) {
    for i in 0..examples.examples.len() {
        let point: Vec<f32> = noisy(examples, i, alpha_bar).collect();
        if let [a, b, ..] = point[..]
            && a.abs() < REACH
            && b.abs() < REACH
        {
            let place = |v: f32| f64::from((v + REACH) / (2.0 * REACH)) * size;
            scene.dot((x + place(a), y + size - place(b)), 1.1, color, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::synthetic;

    #[test]
    fn the_same_noise_is_mixed_in_by_alpha_bar() {
        let p = synthetic::pictures();
        let v: Vec<f32> = noisy(&p, 1, 0.36).collect();
        assert!((v[9] - (0.6 * p.examples[1][9] + 0.8 * p.noise[1][9])).abs() < 1e-6);
        let bits = ForwardExamples {
            redrawn: Some(0.2),
            examples: vec![[vec![1.0; 32], vec![-1.0; 32]].concat()],
            noise: vec![p.noise[0].clone()],
            ..p.clone()
        };
        let beats = |alpha_bar| noisy(&bits, 0, alpha_bar).filter(|v| *v > 0.0).count();
        assert_eq!(beats(1.0), 32);
        assert!((5..22).contains(&beats(0.0)), "{} of 64 at a rate of 0.2", beats(0.0));
        let all_signal: Vec<f32> = noisy(&p, 0, 1.0).collect();
        assert_eq!(all_signal, p.examples[0]);
    }

    #[test]
    fn points_are_scattered_without_their_noise_at_the_start() {
        let mut data = synthetic::sweep();
        data.forward = Ok(synthetic::points());
        let Drawn::Figure(figure) = draw(&Study::new(&data)).unwrap() else { panic!("no figure") };
        let dots = figure.scene.shapes.iter().filter(|s| matches!(s, crate::report::draw::Shape::Dot { .. })).count();
        // Four schedules, nine columns, 400 points each, a few of them outside the frame.
        assert!(dots > 4 * 9 * 390 && dots <= 4 * 9 * 400, "{dots}");
        assert!(figure.caption.starts_with("Points"));
    }

    #[test]
    fn chosen_timesteps_begin_at_one_and_end_at_the_last() {
        assert_eq!((timestep(0.0, 1000), timestep(0.05, 1000), timestep(1.0, 1000), timestep(0.05, 4)), (1, 50, 1000, 1));
    }
}
