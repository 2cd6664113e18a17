//! The norm of the gradient against step.

use super::curves::{COLUMNS, Curve, axis_words, lines_words};
use super::{Drawn, Figure, canvas};
use crate::report::ReportError;
use crate::report::study::Study;
use crate::report::text::Csv;

pub const NAME: &str = "gradient_norm";

pub fn draw(study: &Study) -> Result<Drawn, ReportError> {
    let curve = Curve {
        quantity: "grad_norm".into(),
        heading: "Norm of the gradient, mean over each window".into(),
        x_label: "optimizer step",
        of: &|r| r.grad_norm.clone(),
        ticks: 5,
        seeds: true,
        bands: false,
    };
    if !curve.is_known(study) {
        return Ok(Drawn::skipped(NAME, "no run has recorded the norm of its gradient"));
    }
    let (mut scene, place, names) = canvas(study, 440.0);
    let mut csv = Csv::new(&COLUMNS);
    let axis = axis_words(curve.draw(study, &mut scene, place, &names, &mut csv));
    Ok(Drawn::Figure(Box::new(Figure {
        name: NAME.into(),
        title: "Gradient norm against step".into(),
        caption: format!(
            "Euclidean norm of the gradient of the training loss over all parameters, before clipping, as the mean over the steps of each logging window \
             ({axis}). Losses of different units have gradients of different size: compare the course of a line, not the height of two. {}",
            lines_words(study, true, false)
        ),
        csv: csv.finish(),
        more_csv: Vec::new(),
        scene,
    })))
}
