//! A build without cuDNN unfolds its convolutions.

use super::buffer::Buffer;
use super::conv3x3::Shape3x3;
use candle_core::{Result, Tensor};

/// Whether the build has cuDNN.
pub(super) const BUILT: bool = false;

pub(super) fn forward(_x: &Tensor, _w: &Tensor, _shape: Shape3x3) -> Result<Option<Buffer>> {
    Ok(None)
}

pub(super) fn input_gradient(_w: &Tensor, _dy: &Tensor, _shape: Shape3x3) -> Result<Option<Tensor>> {
    Ok(None)
}

pub(super) fn weight_gradient(_x: &Tensor, _dy: &Tensor, _shape: Shape3x3) -> Result<Option<Tensor>> {
    Ok(None)
}
