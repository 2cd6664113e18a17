//! The columns of `losses.parquet`: names, order and types, written once.
//!
//! This is what users' scripts rely on. Changing anything here is a new [`SCHEMA`](super::SCHEMA).

use polars::prelude::DataType;

/// What names the run in every row of its table.
#[derive(Clone, Debug, PartialEq)]
pub struct RunColumns {
    pub run_id: String,
    pub slug: String,
    pub schedule: String,
    pub loss: String,
    pub prediction: String,
    pub variance: String,
    pub model: String,
    pub data: String,
    /// T.
    pub timesteps: u32,
    pub batch_size: u32,
    pub lr: f64,
    pub seed: i64,
}

/// A column of the table.
pub struct ColumnSpec {
    pub name: &'static str,
    pub dtype: DataType,
    /// Whether a row may have no value there.
    pub nullable: bool,
}

/// Every column, in order.
pub fn columns() -> Vec<ColumnSpec> {
    use DataType::{Float64, Int32, Int64, String, UInt32};
    let must = |name, dtype| ColumnSpec { name, dtype, nullable: false };
    let may = |name| ColumnSpec { name, dtype: Float64, nullable: true };
    vec![
        must("run_id", String),
        must("slug", String),
        must("schedule", String),
        must("loss", String),
        must("prediction", String),
        must("variance", String),
        must("model", String),
        must("data", String),
        must("timesteps", Int32),
        must("batch_size", Int32),
        must("lr", Float64),
        must("seed", Int64),
        must("split", String),
        must("weights", String),
        must("step", Int64),
        must("t", Int32),
        must("term", String),
        must("t_weight", Float64),
        must("n", UInt32),
        must("n_nonfinite", UInt32),
        may("mse_mean"),
        may("mse_m2"),
        may("x0_mse_mean"),
        must("vb_mean", Float64),
        must("vb_m2", Float64),
        may("mse_floor"),
        may("vb_floor"),
        may("grad_norm_mean"),
    ]
}

/// Columns that are the same in every row: they name the run and are not read back.
pub const RUN_COLUMNS: usize = 12;
