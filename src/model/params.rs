//! Parameters: names, shapes, where each lies in one flat buffer, how it starts, how a file orders it.
//!
//! Start at [`ParamLayout`]. The optimizer and checkpoints see one flat array; [`ParamLayout::tensors`] makes the tensors
//! a forward pass takes, [`ParamLayout::add_gradients`] brings their gradients back.

use super::ModelError;
use crate::ops::cuda::sent;
use crate::ops::{Places, Slopes, add_tensor};
use crate::rng::{Purpose, stream};
use candle_core::{Device, Result, Tensor, Var, WithDType, bail};

/// How a file orders a parameter, compared with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskLayout {
    Same,
    /// Convolutions: `[C_out, k, k, C_in]` in memory, PyTorch's `[C_out, C_in, k, k]` in files.
    ConvOhwiToOihw,
}

/// What a parameter is before training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ParamInit {
    Zeros,
    Ones,
    /// Uniform in [-bound, bound).
    Uniform {
        bound: f64,
    },
}

/// One parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// As diffusers names it.
    pub name: String,
    /// In memory.
    pub shape: Vec<usize>,
    pub disk: DiskLayout,
    pub init: ParamInit,
    /// Of its first number in the flat buffer.
    pub offset: usize,
}

impl ParamSpec {
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where it lies in the flat buffer.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.len()
    }

    /// The shape a file gives it.
    pub fn disk_shape(&self) -> Vec<usize> {
        match self.disk {
            DiskLayout::Same => self.shape.clone(),
            DiskLayout::ConvOhwiToOihw => vec![self.shape[0], self.shape[3], self.shape[1], self.shape[2]],
        }
    }

    /// For each number in the order of the file: its place in memory, from the parameter's start.
    fn disk_order(&self) -> Box<dyn Iterator<Item = usize> + '_> {
        match (self.disk, self.shape.as_slice()) {
            (DiskLayout::ConvOhwiToOihw, &[o, kh, kw, i]) => Box::new((0..o * i * kh * kw).map(move |at| {
                let (x, y) = (at % kw, at / kw % kh);
                let (c_in, c_out) = (at / (kw * kh) % i, at / (kw * kh * i));
                ((c_out * kh + y) * kw + x) * i + c_in
            })),
            _ => Box::new(0..self.len()),
        }
    }
}

/// Names a parameter of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamId(usize);

/// All parameters of a model, sorted by name, and their places in one flat buffer.
#[derive(Clone, Debug)]
pub struct ParamLayout {
    specs: Vec<ParamSpec>,
    /// Of each [`ParamId`]: its index in `specs`.
    position: Vec<usize>,
    total: usize,
}

impl ParamLayout {
    /// From parameters in the order in which they were declared, which is that of their ids.
    pub(super) fn new(mut declared: Vec<ParamSpec>) -> Self {
        let mut order: Vec<usize> = (0..declared.len()).collect();
        order.sort_by(|&a, &b| declared[a].name.cmp(&declared[b].name));
        let mut position = vec![0; declared.len()];
        let mut total = 0;
        for (place, &id) in order.iter().enumerate() {
            position[id] = place;
            declared[id].offset = total;
            total += declared[id].len();
        }
        declared.sort_by(|a, b| a.name.cmp(&b.name));
        Self { specs: declared, position, total }
    }

    /// Numbers of all parameters together.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Parameters (tensors).
    pub fn len(&self) -> usize {
        self.specs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.specs.is_empty()
    }

    /// Sorted by name, without gaps in the flat buffer.
    pub fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    /// Starting values. Those of a parameter depend on the seed, its name and its shape alone, so models that differ
    /// elsewhere start alike where they agree.
    pub fn init(&self, seed: u64) -> Vec<f32> {
        let mut flat = vec![0.0; self.total];
        for spec in &self.specs {
            let out = &mut flat[spec.range()];
            match spec.init {
                ParamInit::Zeros => {}
                ParamInit::Ones => out.fill(1.0),
                ParamInit::Uniform { bound } => {
                    let hash = blake3::hash(spec.name.as_bytes());
                    let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| hash.as_bytes()[at + i]));
                    stream(seed, Purpose::Init, 0).lane(word(0) & 0xFF_FFFF).uniforms(word(4), out);
                    let bound = bound as f32;
                    out.iter_mut().for_each(|u| *u = (2.0 * *u - 1.0) * bound);
                }
            }
        }
        flat
    }

    /// The tensors of a flat buffer; `tracked` ones are variables, whose gradients a backward pass finds.
    ///
    /// # Errors
    /// If `flat` has another length, or the device fails.
    pub fn tensors<T: WithDType>(&self, flat: &[T], device: &Device, tracked: bool) -> Result<Params> {
        if flat.len() != self.total {
            bail!("{} numbers were given for a network of {} parameters", flat.len(), self.total)
        }
        let tensors = self.position.iter().map(|&place| {
            let spec = &self.specs[place];
            let numbers = &flat[spec.range()];
            let shape = spec.shape.as_slice();
            if tracked { Var::from_slice(numbers, shape, device).map(Var::into_inner) } else { sent(numbers, shape, device) }
        });
        Ok(Params { tensors: tensors.collect::<Result<_>>()? })
    }

    /// Adds the gradient to the flat `sum`; a parameter the loss does not depend on adds nothing.
    ///
    /// # Errors
    /// If `params` or `sum` belong to another model, or the device fails.
    pub fn add_gradients<T: WithDType>(&self, params: &Params, slopes: &Slopes, sum: &mut [T]) -> Result<()> {
        if sum.len() != self.total || params.tensors.len() != self.specs.len() {
            bail!("{} numbers were given for the gradient of a network of {} parameters", sum.len(), self.total)
        }
        for (tensor, &place) in params.tensors.iter().zip(&self.position) {
            let spec = &self.specs[place];
            let Some(grad) = slopes.get(tensor) else { continue };
            add_tensor(grad, tensor, &mut sum[spec.range()])?;
        }
        Ok(())
    }

    /// The parameters of a forward pass from tensors in the order of the flat buffer.
    ///
    /// # Errors
    /// If they are not those of this model.
    pub fn params(&self, tensors: &[Tensor]) -> Result<Params> {
        if tensors.len() != self.specs.len() || self.specs.iter().zip(tensors).any(|(spec, t)| t.dims() != spec.shape) {
            bail!("{} tensors were given for a network of {} parameters of other shapes", tensors.len(), self.specs.len())
        }
        Ok(Params { tensors: self.position.iter().map(|&place| tensors[place].clone()).collect() })
    }

    /// Where the gradients of these tensors lie in the flat buffer.
    pub fn places(&self, params: &Params) -> Places {
        Places::new(params.tensors.iter().zip(&self.position).map(|(t, &place)| (t.clone(), self.specs[place].range())).collect())
    }

    /// (name, shape, numbers) of every parameter as a file holds it, sorted by name.
    ///
    /// # Panics
    /// If `flat` has another length than [`total`](Self::total).
    pub fn to_disk(&self, flat: &[f32]) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        assert_eq!(flat.len(), self.total, "the flat buffer belongs to another network");
        let one = |spec: &ParamSpec| {
            let memory = &flat[spec.range()];
            (spec.name.clone(), spec.disk_shape(), spec.disk_order().map(|at| memory[at]).collect())
        };
        self.specs.iter().map(one).collect()
    }

    /// The flat buffer of a file's parameters; `lookup` gives shape and numbers of a name. The names that older versions
    /// of diffusers gave the attention's parameters are found too.
    ///
    /// # Errors
    /// If a parameter is missing or has another shape.
    pub fn from_disk(&self, lookup: impl Fn(&str) -> Option<(Vec<usize>, Vec<f32>)>) -> std::result::Result<Vec<f32>, ModelError> {
        let mut flat = vec![0.0; self.total];
        for spec in &self.specs {
            let Some((shape, numbers)) = lookup(&spec.name).or_else(|| lookup(&older_name(&spec.name))) else {
                return Err(ModelError::Missing { name: spec.name.clone(), shape: spec.disk_shape(), expected: self.len() });
            };
            if shape != spec.disk_shape() || numbers.len() != spec.len() {
                return Err(ModelError::Shape { name: spec.name.clone(), found: shape, expected: spec.disk_shape() });
            }
            let memory = &mut flat[spec.range()];
            for (at, number) in spec.disk_order().zip(numbers) {
                memory[at] = number;
            }
        }
        Ok(flat)
    }
}

fn older_name(name: &str) -> String {
    [(".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn.")]
        .iter()
        .fold(name.to_owned(), |name, (new, old)| name.replace(new, old))
}

/// The parameters of a forward pass.
#[derive(Clone, Debug)]
pub struct Params {
    tensors: Vec<Tensor>,
}

impl Params {
    pub fn get(&self, id: ParamId) -> &Tensor {
        &self.tensors[id.0]
    }
}

/// Collects the parameters of a model under construction.
#[derive(Default)]
pub(super) struct Declared(Vec<ParamSpec>);

impl Declared {
    pub(super) fn param(&mut self, name: String, shape: &[usize], disk: DiskLayout, init: ParamInit) -> ParamId {
        self.0.push(ParamSpec { name, shape: shape.to_vec(), disk, init, offset: 0 });
        ParamId(self.0.len() - 1)
    }

    pub(super) fn layout(self) -> ParamLayout {
        ParamLayout::new(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn layout() -> (ParamLayout, [ParamId; 3]) {
        let mut declared = Declared::default();
        let uniform = ParamInit::Uniform { bound: 0.5 };
        let conv = declared.param("b.weight".into(), &[3, 2, 2, 4], DiskLayout::ConvOhwiToOihw, uniform);
        let q = declared.param("a.to_q.weight".into(), &[100, 30], DiskLayout::Same, uniform);
        let bias = declared.param("b.bias".into(), &[3], DiskLayout::Same, ParamInit::Zeros);
        (declared.layout(), [conv, q, bias])
    }

    #[test]
    fn parameters_are_sorted_and_fill_the_buffer() {
        let (layout, [conv, q, bias]) = layout();
        let names: Vec<&str> = layout.specs().iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["a.to_q.weight", "b.bias", "b.weight"]);
        assert_eq!(layout.specs().iter().map(|s| s.offset).collect::<Vec<_>>(), [0, 3000, 3003]);
        assert_eq!(layout.total(), 3003 + 48);
        let params = layout.tensors(&vec![0.0_f32; 3051], &Device::Cpu, false).unwrap();
        assert_eq!([conv, q, bias].map(|id| params.get(id).elem_count()), [48, 3000, 3]);
        assert!(layout.tensors(&[0.0_f32; 3], &Device::Cpu, false).is_err());
    }

    #[test]
    fn starting_values_depend_on_seed_and_name_and_stay_in_bounds() {
        let (layout, _) = layout();
        let (a, b) = (layout.init(1), layout.init(2));
        assert_ne!(a, b);
        assert_eq!(a, layout.init(1));
        let (q, conv) = (&a[..3000], &a[3003..]);
        assert_ne!(q[..48], *conv);
        assert!(q.iter().all(|v| (-0.5..0.5).contains(v)));
        let mean = q.iter().sum::<f32>() / 3000.0;
        let square = q.iter().map(|v| v * v).sum::<f32>() / 3000.0;
        assert!(mean.abs() < 0.03 && (square - 1.0 / 12.0).abs() < 0.01);
        // Alone in another model, the parameter starts the same.
        let mut other = Declared::default();
        other.param("a.to_q.weight".into(), &[100, 30], DiskLayout::Same, ParamInit::Uniform { bound: 0.5 });
        assert_eq!(other.layout().init(1), q);
    }

    #[test]
    fn files_hold_convolutions_in_pytorchs_order_and_come_back() {
        let (layout, _) = layout();
        let flat: Vec<f32> = (0..layout.total()).map(|i| i as f32).collect();
        let disk = layout.to_disk(&flat);
        let (name, shape, numbers) = &disk[2];
        assert_eq!((name.as_str(), shape.as_slice()), ("b.weight", [3, 4, 2, 2].as_slice()));
        // Number [o = 1, i = 3, y = 0, x = 1] of the file is [1, 0, 1, 3] in memory.
        assert_eq!(numbers[((4 + 3) * 2) * 2 + 1], flat[3003 + (2 * 2 + 1) * 4 + 3]);
        // The attention's name here is the older one.
        let file: HashMap<String, (Vec<usize>, Vec<f32>)> =
            disk.into_iter().map(|(name, shape, numbers)| (name.replace("to_q", "query"), (shape, numbers))).collect();
        assert_eq!(layout.from_disk(|name| file.get(name).cloned()).unwrap(), flat);
    }

    #[test]
    fn missing_and_misshapen_parameters_are_named() {
        let (layout, _) = layout();
        let e = layout.from_disk(|_| None).unwrap_err().to_string();
        assert!(e.contains("`a.to_q.weight` is missing"), "{e}");
        let e = layout.from_disk(|_| Some((vec![30, 100], vec![0.0; 3000]))).unwrap_err().to_string();
        assert!(e.contains("[30, 100]") && e.contains("[100, 30]"), "{e}");
    }

    #[test]
    fn gradients_land_at_their_offsets_and_unused_parameters_add_nothing() {
        let (layout, [conv, _, bias]) = layout();
        let params = layout.tensors(&layout.init(1), &Device::Cpu, true).unwrap();
        let loss = (params.get(conv).sum_all().unwrap() + (params.get(bias) * 2.0).unwrap().sum_all().unwrap()).unwrap();
        let mut sum = vec![7.0_f32; layout.total()];
        let slopes = Slopes::of_candle(&loss.backward().unwrap(), &[params.get(conv), params.get(bias)]);
        layout.add_gradients(&params, &slopes, &mut sum).unwrap();
        assert!(sum[..3000].iter().all(|g| *g == 7.0));
        assert_eq!(sum[3000..3003], [9.0; 3]);
        assert!(sum[3003..].iter().all(|g| *g == 8.0));
    }
}
