//! Conventions that are types: 1-based timesteps, and the two units of a bound.

use std::num::NonZeroU32;

/// A diffusion timestep, 1..=T as in the papers; `t = 1` is the least noisy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestep(NonZeroU32);

impl Timestep {
    /// The first timestep, whose reverse step is the decoder.
    pub const FIRST: Timestep = Timestep(NonZeroU32::MIN);

    /// `None` for 0.
    pub fn new(t: u32) -> Option<Self> {
        NonZeroU32::new(t).map(Self)
    }

    /// The timestep whose zero-based table index is `index`.
    pub fn from_index(index: usize) -> Self {
        let t = u32::try_from(index + 1).expect("a timestep fits 32 bits");
        Self(NonZeroU32::new(t).expect("index + 1 is positive"))
    }

    /// The 1-based number.
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// The zero-based index into tables of length T.
    pub fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl std::fmt::Display for Timestep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A number of bytes in words: `12 MB`.
pub fn bytes(bytes: f64) -> String {
    match bytes {
        b if b < 999.5 => format!("{b:.0} B"),
        b if b < 999.5e3 => format!("{:.0} kB", b / 1e3),
        b if b < 999.5e6 => format!("{:.0} MB", b / 1e6),
        b if b < 999.5e9 => format!("{:.1} GB", b / 1e9),
        b => format!("{:.1} TB", b / 1e12),
    }
}

/// A quantity of information per example, in nats, summed over its dimensions.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Nats(pub f64);

/// A quantity of information per dimension, in bits: the unit of every stored bound.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct BitsPerDim(pub f64);

impl Nats {
    /// `nats / (dims · ln 2)`.
    pub fn bits_per_dim(self, dims: usize) -> BitsPerDim {
        BitsPerDim(self.0 / (dims as f64 * std::f64::consts::LN_2))
    }
}
