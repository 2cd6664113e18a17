//! The kernels' texts.

/// The texts of a module, in order.
pub(super) const TEXTS: &[&str] = &[
    include_str!("kernels/prelude.cu"),
    include_str!("kernels/elementwise.cu"),
    include_str!("kernels/sums.cu"),
    include_str!("kernels/group_norm.cu"),
    include_str!("kernels/unfold.cu"),
    include_str!("kernels/random.cu"),
    include_str!("kernels/diffusion.cu"),
    include_str!("kernels/layer_norm.cu"),
    include_str!("kernels/training.cu"),
];

/// The types a module is compiled for: name, type in memory, type of the arithmetic.
pub(super) const MODULES: [(&str, &str, &str); 3] = [("f32", "float", "float"), ("f64", "double", "double"), ("bf16", "bf16", "float")];

/// The text of a module.
pub(super) fn source(module: usize) -> String {
    let (_, store, real) = MODULES[module];
    let types = format!("struct bf16 {{ unsigned short bits; }};\ntypedef {store} store;\ntypedef {real} real;\n");
    std::iter::once(types.as_str()).chain(TEXTS.iter().copied()).collect::<Vec<_>>().join("\n")
}
