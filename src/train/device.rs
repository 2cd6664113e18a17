//! Where a run computes.

use super::TrainError;
use crate::config::{Dtype, MatmulPrecision, TrainSpec};
use crate::ops::cuda;
use candle_core::Device;

/// What tells libraries to start no threads of their own: the trainer's are as many as it was given, and candle's pool,
/// whose idle threads spin, would take the cores from them.
pub const ONE_THREAD: [&str; 3] = ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS", "POLARS_MAX_THREADS"];

/// Sets [`ONE_THREAD`] for this process, where the user has not.
///
/// # Safety
/// No other thread may run yet.
pub unsafe fn no_threads_but_ours() {
    for name in ONE_THREAD.iter().filter(|name| std::env::var_os(name).is_none()) {
        // SAFETY: nothing else reads the environment, as the caller promises.
        unsafe { std::env::set_var(name, "1") };
    }
}

/// `--device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// CUDA where this build has it and a device answers, else the CPU.
    Auto,
    Cpu,
    Cuda(usize),
}

impl std::str::FromStr for DeviceChoice {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => match s.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
                Some(n) => Ok(Self::Cuda(n)),
                None => Err(format!("`{s}` is not a device; allowed: auto, cpu, cuda, cuda:N")),
            },
        }
    }
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

impl DeviceChoice {
    /// The device, and its name for the record: `cpu` or `cuda:N`.
    ///
    /// # Errors
    /// If CUDA was asked for by name and is not there.
    pub fn open(self) -> Result<(Device, String), TrainError> {
        let open = |n: usize| -> Result<(Device, String), TrainError> {
            let reason = |reason: String| TrainError::Device { asked: format!("cuda:{n}"), reason };
            if !cfg!(feature = "cuda") {
                return Err(reason("this build has no CUDA; build with `--features cuda` (just does where it finds nvcc)".to_owned()));
            }
            cuda::open(n).map(|d| (d, format!("cuda:{n}"))).map_err(|e| reason(first_line(&e)))
        };
        match self {
            Self::Cpu => Ok((Device::Cpu, "cpu".to_owned())),
            Self::Cuda(n) => open(n),
            Self::Auto if cfg!(feature = "cuda") => open(0).or_else(|error| {
                tracing::warn!("{error}; computing on the CPU");
                Ok((Device::Cpu, "cpu".to_owned()))
            }),
            Self::Auto => Ok((Device::Cpu, "cpu".to_owned())),
        }
    }
}

/// Without the backtrace that candle appends where `RUST_BACKTRACE` is set.
fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// What of a configuration only a GPU computes, as `key = value`. It is part of the run's identity, so a CPU may not quietly
/// do something else in its place.
pub fn needs_cuda(train: &TrainSpec) -> Option<&'static str> {
    match (train.dtype, train.matmul_precision) {
        (Dtype::Bf16, _) => Some("train.dtype = \"bf16\""),
        (Dtype::F32, MatmulPrecision::Tf32) => Some("train.matmul_precision = \"tf32\""),
        (Dtype::F32, MatmulPrecision::F32) => None,
    }
}

/// The instruction set that the numeric kernels choose on this processor. Results are bit for bit repeatable on one of them.
pub fn instruction_set() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return "avx512";
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            return "avx2";
        }
        "x86-64"
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        std::env::consts::ARCH
    }
}
