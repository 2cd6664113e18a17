//! Data of two levels: the heartbeat of [SohlDickstein15] and the digits as black and white.
//!
//! Start at [`heartbeat`] and [`digits`]. Bits are stored as levels 0 and 1, so a network sees −1 and +1, and a Gaussian
//! kernel can be trained on them as well as a Binomial one.

use super::{Examples, Shape, toy};

/// Bits of a heartbeat, and bits from one beat to the next.
pub const LENGTH: usize = 20;
pub const PERIOD: usize = 5;

pub(super) const HEARTBEAT: Shape = Shape { height: 1, width: LENGTH, channels: 1 };

/// Twenty bits with a beat at every fifth, from a phase that is uniform over the five: five equally likely sequences, so an
/// entropy of log2 5 = 2.322 bits. [SohlDickstein15, §3.1.2]
///
/// The splits are independent draws of the phase, as many as of the points.
pub(super) fn heartbeat() -> [Examples; 3] {
    let phases = toy::phases(PERIOD as u32);
    phases.map(|phases| Examples::from_levels(HEARTBEAT, 2, phases.iter().flat_map(|&phase| beats(phase)).collect()))
}

/// The five sequences there are, as the network sees them, one after the other.
pub fn heartbeats() -> Vec<f32> {
    (0..PERIOD as u32).flat_map(beats).map(|bit| f32::from(bit) * 2.0 - 1.0).collect()
}

/// The sequence of one phase.
fn beats(phase: u32) -> impl Iterator<Item = u8> {
    (0..LENGTH).map(move |i| u8::from(i % PERIOD == phase as usize))
}

/// The built-in digits with levels 8 to 16 as 1 and those below as 0, in the splits of the digits.
pub(super) fn digits(grey: [Examples; 3]) -> [Examples; 3] {
    const THRESHOLD: u8 = 8;
    grey.map(|split| {
        let bits = (0..split.len()).flat_map(|i| split.raw_u8(i).unwrap_or_default().iter().map(|&v| u8::from(v >= THRESHOLD)));
        Examples::from_levels(split.shape(), 2, bits.collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_has_four_beats_five_apart_and_every_phase_is_as_likely() {
        let [train, val, test] = heartbeat();
        assert_eq!((train.len(), val.len(), test.len()), (toy::TRAIN, toy::VAL, toy::TEST));
        let mut counts = [0usize; PERIOD];
        for i in 0..train.len() {
            let bits = train.raw_u8(i).unwrap();
            let first = bits.iter().position(|&b| b == 1).unwrap();
            assert!(bits.iter().enumerate().all(|(j, &b)| (b == 1) == (j % PERIOD == first)), "{bits:?}");
            counts[first] += 1;
        }
        // Chi-squared with 4 degrees of freedom at p = 0.001.
        let expected = train.len() as f64 / PERIOD as f64;
        let chi2: f64 = counts.iter().map(|&c| (c as f64 - expected).powi(2) / expected).sum();
        assert!(chi2 < 18.5, "{counts:?}");
    }

    #[test]
    fn black_and_white_digits_are_the_grey_ones_cut_at_half() {
        let spec = super::super::tests::builtin_spec;
        let (grey, bits) = (super::super::load(&spec("digits")).unwrap(), super::super::load(&spec("digits_binary")).unwrap());
        for i in [0, 7, 1443] {
            let (g, b) = (grey.train.raw_u8(i).unwrap(), bits.train.raw_u8(i).unwrap());
            assert!(g.iter().zip(b).all(|(g, b)| (*g > 7) == (*b == 1)));
        }
        assert_eq!((bits.info.train, bits.info.val, bits.info.test), (grey.info.train, grey.info.val, grey.info.test));
    }
}
