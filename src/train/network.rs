//! A model with its weights on a device: what evaluation and sampling call.

use crate::data::Shape;
use crate::diffusion::{Denoiser, DenoiserError};
use crate::model::{Model, Params};
use crate::units::Timestep;
use candle_core::{Device, Tensor};

/// A model with detached weights: predictions keep no graph.
pub struct Network<'a> {
    model: &'a Model,
    params: Params,
    shape: Shape,
    device: Device,
}

impl<'a> Network<'a> {
    /// `flat` holds the weights in the layout of the model.
    ///
    /// # Errors
    /// If the device refuses the weights.
    pub fn new(model: &'a Model, flat: &[f32], shape: Shape, device: &Device) -> Result<Self, candle_core::Error> {
        Ok(Self { params: model.layout().tensors(flat, device, false)?, model, shape, device: device.clone() })
    }
}

impl Denoiser for Network<'_> {
    fn predict(&self, x_t: &[f32], t: &[Timestep], output: &mut [f32]) -> Result<(), DenoiserError> {
        let Shape { height, width, channels } = self.shape;
        let x = Tensor::from_slice(x_t, (t.len(), height, width, channels), &self.device)?;
        let predicted = self.model.forward(&self.params, &x, t, None)?.flatten_all()?.to_vec1::<f32>()?;
        if predicted.len() != output.len() {
            return Err(format!("the network put out {} numbers where {} were expected", predicted.len(), output.len()).into());
        }
        output.copy_from_slice(&predicted);
        Ok(())
    }

    fn batch(&self) -> usize {
        if self.device.is_cuda() {
            return 256;
        }
        // Enough examples to fill the matrix products, few enough to stay in cache.
        (16_384 / self.shape.dims().max(1)).clamp(4, 64)
    }
}
