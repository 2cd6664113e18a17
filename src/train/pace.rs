//! How often a run writes: often enough to lose little, seldom enough to cost nothing.
//!
//! Everything here is counted, nothing is measured: the same run writes the same files at the same steps.

/// Steps between checkpoints where nobody says how many, unless those take less than [`SECONDS_BETWEEN_CHECKPOINTS`].
pub const LEAST_BETWEEN_CHECKPOINTS: u32 = 500;
const SECONDS_BETWEEN_CHECKPOINTS: f64 = 2.0;

/// The table is written anew where that takes at most this share of the steps since the last time, a row so many seconds; or
/// where it has grown so many times.
const TABLE_SHARE: f64 = 0.005;
const TABLE_SECONDS: f64 = 1.2e-6;
const TABLE_GROWTH: usize = 4;

/// What a step takes at the speed of a fast core or GPU.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    seconds: f64,
}

impl Pace {
    /// For steps of so many floating-point operations.
    pub fn new(flops: f64, on_device: bool) -> Self {
        // A GPU's step has hundreds of kernels, however small.
        Self { seconds: if on_device { (flops / 1e13).max(2e-4) } else { flops / 1e11 } }
    }

    /// Steps between checkpoints, where `asked` is 0.
    pub fn checkpoint_every(self, asked: u32) -> u32 {
        if asked > 0 { asked } else { ((SECONDS_BETWEEN_CHECKPOINTS / self.seconds).ceil() as u32).max(LEAST_BETWEEN_CHECKPOINTS) }
    }

    /// Whether a checkpoint writes the whole table of `rows`, `tabled` of which were written `steps` ago.
    pub fn table_is_due(self, rows: usize, tabled: usize, steps: u32) -> bool {
        rows >= TABLE_GROWTH * tabled || rows as f64 * TABLE_SECONDS <= TABLE_SHARE * f64::from(steps) * self.seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_as_asked_else_at_least_two_seconds_apart() {
        // An MLP of 128 × 3 at batch 256, and a U-Net of a hundred times the arithmetic.
        let (mlp, unet) = (Pace::new(1.6e8, false), Pace::new(2e10, false));
        assert_eq!([mlp, unet].map(|p| p.checkpoint_every(7)), [7, 7]);
        assert_eq!([mlp, unet].map(|p| p.checkpoint_every(0)), [1250, 500]);
        assert_eq!(Pace::new(1.6e8, true).checkpoint_every(0), 10_000);
    }

    #[test]
    fn the_table_is_written_where_it_is_cheap_or_has_grown() {
        let (mlp, unet) = (Pace::new(1.6e8, false), Pace::new(2e10, false));
        assert!(mlp.table_is_due(5000, 0, 500), "the first time");
        assert!(!mlp.table_is_due(10_000, 5000, 500) && unet.table_is_due(10_000, 5000, 500));
        assert!(mlp.table_is_due(20_000, 5000, 1500), "four times as long");
        assert!(!unet.table_is_due(1_000_000, 990_000, 500), "a long table of a long run");
    }
}
