//! The kernels' texts.

/// What every text builds on.
const PRELUDE: &str = include_str!("kernels/prelude.cu");

/// What is compiled together, and its name: a process compiles what it uses.
pub(super) const UNITS: [(&str, &[&str]); 2] = [
    (
        "kernels",
        &[
            include_str!("kernels/elementwise.cu"),
            include_str!("kernels/sums.cu"),
            include_str!("kernels/group_norm.cu"),
            include_str!("kernels/unfold.cu"),
            include_str!("kernels/random.cu"),
            include_str!("kernels/diffusion.cu"),
            include_str!("kernels/layer_norm.cu"),
            include_str!("kernels/training.cu"),
        ],
    ),
    ("conv3x3", &[include_str!("kernels/conv3x3.cu")]),
];

/// The types a unit is compiled for: name, type in memory, type of the arithmetic.
pub(super) const MODULES: [(&str, &str, &str); 3] = [("f32", "float", "float"), ("f64", "double", "double"), ("bf16", "bf16", "float")];

/// The text of a module of some units.
pub(super) fn source(units: &[(&str, &[&str])], module: usize) -> String {
    let (_, store, real) = MODULES[module];
    let types = format!("struct bf16 {{ unsigned short bits; }};\ntypedef {store} store;\ntypedef {real} real;\n");
    [types.as_str(), PRELUDE].into_iter().chain(units.iter().flat_map(|(_, texts)| texts.iter().copied())).collect::<Vec<_>>().join("\n")
}

/// The kernels of a text: name, and what follows its opening parenthesis up to the next one.
pub(super) fn kernels(text: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    text.split("__global__ void ").skip(1).map(|rest| rest.split_once('(').expect("a kernel has arguments"))
}

/// The unit that has a kernel, as an index of [`UNITS`].
#[cfg(feature = "cuda")]
pub(super) fn unit_of(kernel: &str) -> Option<usize> {
    use std::{collections::HashMap, sync::OnceLock};
    static UNIT: OnceLock<HashMap<&str, usize>> = OnceLock::new();
    let units = UNIT.get_or_init(|| {
        let texts = UNITS.iter().enumerate().flat_map(|(unit, (_, texts))| texts.iter().map(move |&text| (unit, text)));
        texts.flat_map(|(unit, text)| kernels(text).map(move |(name, _)| (name, unit))).collect()
    });
    units.get(kernel).copied()
}
