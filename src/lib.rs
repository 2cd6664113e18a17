//! ddpm-lab: a research harness for denoising diffusion models.
//!
//! A researcher writes one TOML file that names the axes of a question; every cell of the grid is trained, its losses at
//! every timestep go to Parquet, and a report draws the comparison. This page is the map of the code; the README is the
//! guide for users.
//!
//! # The house
//!
//! Floors, lowest first. Imports only point down, and only the named floors may name the heavy crates;
//! `tests/it/architecture.rs` holds both.
//!
//! | floor | module | holds |
//! |---|---|---|
//! | 0 | [`named`] [`units`] [`rng`] [`simd`] [`record`] | enums with names; 1-based timesteps; the only randomness; loops at full width; the vocabulary of results |
//! | 1 | [`ops`] | differentiable operations with their own backward, NHWC, one file each |
//! | 1 | [`diffusion`] | schedules, the Gaussian and the Binomial process, losses, the bound, samplers, posteriors, closed-form denoisers: host slices, no tensors |
//! | 1 | [`model`] | parameters by name, the U-Net, the transformer, the MLP |
//! | 1 | [`optim`] | AdamW, averaging, clipping: one pass over flat buffers |
//! | 1 | [`data`] | embedded sets, toys, HDF5, importers, pictures of examples |
//! | 2 | [`config`] | experiment file → grid → complete [`config::RunConfig`] with its identity |
//! | 3 | [`train`] | the loop, checkpoints, trained runs read back, the floor of their loss, the device |
//! | 3 | [`store`] | the results folder: atomic files, locks, Parquet; what is damaged in it, what may go, older layouts |
//! | 4 | [`sweep`] | what is left to do, one process per run, progress, signals |
//! | 4 | [`report`] | figures, comparison, the HTML page |
//! | 5 | [`cli`] | arguments, messages, exit codes |
//!
//! # The flow
//!
//! ```text
//! experiments/x.toml → config::load → Grid of RunConfig + RunId
//!   → sweep: what is done, what is not → one `worker` process per run:
//!       train::Trainer ── rows, checkpoints ──▶ store::RunDir
//!   → results/runs/<slug>-<id>/… → report::build → results/reports/<name>/index.html
//! ```
//!
//! # Invariants
//!
//! - A [`config::RunConfig`] is complete: nothing below `config` has a default that changes numbers. Its identity is a
//!   hash over every key, so equal configurations of any sweep share one run folder.
//! - Randomness is a pure function of (seed, purpose, step, sample): [`rng::stream`] is the only source, no generator
//!   state exists, and a resumed run draws what the undisturbed one would have drawn.
//! - A step is cut into micro-batches of a fixed size whose gradients are added in their order: on a CPU the results are
//!   the same bits for any number of threads and any number of interruptions (on one instruction set).
//! - On a GPU a step is the same function of the same draws, its weights stay there between checkpoints, and a checkpoint
//!   does not know where it was made; the last bits are the device's own.
//! - Bounds are computed in `f64`, in bits per dimension over the data's own number of levels; losses are stored
//!   unweighted, for every loss variant alike.
//! - Nothing in `losses.parquet` knows of a clock, a host or a path; `run.json` is written last and commits a run.
//! - "Running" is a held file lock, never a word in a file.
//! - Nothing is deleted but what no experiment, sweep or hand names, by whoever holds its lock, the table first.
//! - `report` starts no run, `store` calls no trainer, `train` reads no other run's results.
//!
//! # References
//!
//! Equation numbers are those of these versions.
//!
//! - \[SohlDickstein15\] Deep Unsupervised Learning using Nonequilibrium Thermodynamics, arXiv:1503.03585v8
//! - \[Ho20\] Denoising Diffusion Probabilistic Models, arXiv:2006.11239v2
//! - \[Nichol21\] Improved Denoising Diffusion Probabilistic Models, arXiv:2102.09672v1
//! - \[Hoogeboom21\] Argmax Flows and Multinomial Diffusion, arXiv:2102.05379v3
//! - \[Song21\] Denoising Diffusion Implicit Models, arXiv:2010.02502v4
//! - \[Austin21\] Structured Denoising Diffusion Models in Discrete State-Spaces, arXiv:2107.03006v3
//! - \[Salimans22\] Progressive Distillation for Fast Sampling of Diffusion Models, arXiv:2202.00512v2 (v-prediction)
//! - \[Kingma21\] Variational Diffusion Models, arXiv:2107.00630
//! - \[Choi22\] Perception Prioritized Training of Diffusion Models, arXiv:2204.00227
//! - \[Li22\] Diffusion-LM Improves Controllable Text Generation, arXiv:2205.14217
//! - \[Hang23\] Efficient Diffusion Training via Min-SNR Weighting Strategy, arXiv:2303.09556
//! - \[Lin24\] Common Diffusion Noise Schedules and Sample Steps are Flawed, arXiv:2305.08891
//! - \[Crowson24\] Scalable High-Resolution Pixel-Space Image Synthesis with Hourglass Diffusion Transformers, arXiv:2401.11605
//! - \[Jabri22\] Scalable Adaptive Computation for Iterative Generation, arXiv:2212.11972v2 (sigmoid schedule)
//! - \[Lugmayr22\] RePaint: Inpainting using Denoising Diffusion Probabilistic Models, arXiv:2201.09865v4
//! - \[Bao23\] All are Worth Words: A ViT Backbone for Diffusion Models, arXiv:2209.12152v4 (U-ViT)
//! - \[Ba16\] Layer Normalization, arXiv:1607.06450v1
//! - \[Loshchilov19\] Decoupled Weight Decay Regularization, arXiv:1711.05101v3
//! - \[Lavin15\] Fast Algorithms for Convolutional Neural Networks, arXiv:1509.09308v2
//! - \[Gretton12\] A Kernel Two-Sample Test, JMLR 13 (2012)
//! - \[Salmon11\] Parallel Random Numbers: As Easy as 1, 2, 3, SC'11

pub mod cli;
pub mod config;
pub mod data;
pub mod diffusion;
pub mod model;
pub mod named;
pub mod ops;
pub mod optim;
pub mod record;
pub mod report;
pub mod rng;
pub mod simd;
pub mod store;
pub mod sweep;
pub mod train;
pub mod units;
