//! Fewer steps than the network was trained on: which timesteps are kept, and the process over them.
//!
//! Start at [`kept`] and [`Respaced`]. The network is always told the timestep it was trained on; every coefficient of the
//! step is that of the shorter schedule, learned and fixed variances too.

use super::process::Diffusion;
use super::schedule::ScheduleError;
use super::spec::DiffusionSpec;
use crate::data::{Encoding, Shape};
use crate::named_enum;
use crate::units::Timestep;

named_enum! {
    /// Where the kept timesteps lie. Indices i = t − 1 as in the published code.
    pub enum Spacing {
        /// Both ends and a fractional stride between them, added up and rounded half to even; of sections, each by itself. [Nichol21, code]
        Iddpm = "iddpm",
        /// i = k · ⌊T/N⌋: starts at t = 1 and leaves out the noisiest. [diffusers]
        Leading = "leading",
        /// i = k · (T − 1)/(N − 1), rounded half to even. [diffusers]
        Linspace = "linspace",
        /// i + 1 = T − k · T/N, rounded half to even: ends at T. [diffusers]
        Trailing = "trailing",
    }
}

/// How many timesteps are kept: `50`, in sections of equal length `10,15,20` (least noisy first), or `ddim50`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steps {
    Count(u32),
    Sections(Vec<u32>),
    /// The smallest whole stride from i = 0 that keeps exactly so many. [Nichol21, code]
    Ddim(u32),
}

impl std::str::FromStr for Steps {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| match part.trim().parse::<u32>() {
            Ok(n) if n > 0 => Ok(n),
            _ => Err(format!("`{text}` is no number of steps; write one (50), one for each section (10,15,20), or ddimN (ddim50)")),
        };
        match text.strip_prefix("ddim") {
            Some(rest) => number(rest).map(Self::Ddim),
            None if text.contains(',') => text.split(',').map(number).collect::<Result<_, _>>().map(Self::Sections),
            None => number(text).map(Self::Count),
        }
    }
}

/// Why a schedule cannot be respaced.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RespacingError {
    #[error("{asked} steps cannot be kept of {of} timesteps")]
    TooMany { asked: u32, of: u32 },
    #[error("{asked} steps cannot be kept of the {of} timesteps of section {section}")]
    SectionTooShort { section: usize, asked: u32, of: u32 },
    #[error("no whole stride through {timesteps} timesteps keeps exactly {asked}")]
    NoStride { asked: u32, timesteps: u32 },
    #[error("sections and `ddimN` are ways of the spacing `iddpm`; `{spacing}` takes a single number")]
    NotOfThisSpacing { spacing: Spacing },
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
}

/// The timesteps of 1..=T that are kept, ascending.
///
/// # Errors
/// If there are not enough of them, or no stride gives that number.
pub fn kept(timesteps: u32, steps: &Steps, spacing: Spacing) -> Result<Vec<Timestep>, RespacingError> {
    let total = timesteps;
    let count = match (steps, spacing) {
        (Steps::Ddim(asked), Spacing::Iddpm) => return ddim(total, *asked),
        (Steps::Sections(counts), Spacing::Iddpm) => return sections(total, counts),
        (Steps::Ddim(_) | Steps::Sections(_), _) => return Err(RespacingError::NotOfThisSpacing { spacing }),
        (Steps::Count(count), _) if *count > total => return Err(RespacingError::TooMany { asked: *count, of: total }),
        (Steps::Count(count), _) => *count,
    };
    let (last, n) = (f64::from(total - 1), f64::from(count));
    let index = |k: u32| match spacing {
        Spacing::Leading => f64::from(k * (total / count)),
        Spacing::Linspace => (f64::from(k) * last / (n - 1.0).max(1.0)).round_ties_even(),
        Spacing::Trailing => (f64::from(total) - f64::from(count - 1 - k) * (f64::from(total) / n)).round_ties_even() - 1.0,
        Spacing::Iddpm => unreachable!("the sections of one number are made above"),
    };
    if spacing == Spacing::Iddpm {
        return sections(total, &[count]);
    }
    Ok((0..count).map(|k| Timestep::from_index(index(k) as usize)).collect())
}

fn sections(total: u32, counts: &[u32]) -> Result<Vec<Timestep>, RespacingError> {
    let (size, extra) = (total / counts.len() as u32, total as usize % counts.len());
    let (mut indices, mut start) = (Vec::new(), 0);
    for (i, &count) in counts.iter().enumerate() {
        let length = size + u32::from(i < extra);
        if count > length {
            return Err(if counts.len() == 1 {
                RespacingError::TooMany { asked: count, of: total }
            } else {
                RespacingError::SectionTooShort { section: i + 1, asked: count, of: length }
            });
        }
        let stride = if count > 1 { f64::from(length - 1) / f64::from(count - 1) } else { 1.0 };
        // Added up rather than multiplied, so that the halves are those of the published code.
        let mut place = 0.0f64;
        for _ in 0..count {
            indices.push(start as usize + place.round_ties_even() as usize);
            place += stride;
        }
        start += length;
    }
    indices.dedup();
    Ok(indices.into_iter().map(Timestep::from_index).collect())
}

fn ddim(total: u32, asked: u32) -> Result<Vec<Timestep>, RespacingError> {
    let stride = (1..total).find(|stride| total.div_ceil(*stride) == asked).ok_or(RespacingError::NoStride { asked, timesteps: total })?;
    Ok((0..total).step_by(stride as usize).map(|i| Timestep::from_index(i as usize)).collect())
}

/// A process over some of the timesteps that its network was trained on.
#[derive(Clone, Debug)]
pub struct Respaced {
    /// The process of the network's training, which says what its output means.
    pub trained: Diffusion,
    /// The process that is walked: its timestep k is the k-th that is kept.
    pub process: Diffusion,
    /// What the network is told at each, ascending.
    pub timesteps: Vec<Timestep>,
}

impl Respaced {
    /// Every timestep of `process`.
    pub fn all(process: &Diffusion) -> Self {
        Self { timesteps: (0..process.timesteps()).map(Timestep::from_index).collect(), trained: process.clone(), process: process.clone() }
    }

    /// The process of `spec` over the timesteps that `steps` and `spacing` keep.
    ///
    /// # Errors
    /// As [`kept`]; or if fewer than two timesteps are left.
    pub fn new(spec: &DiffusionSpec, shape: Shape, encoding: Encoding, steps: &Steps, spacing: Spacing) -> Result<Self, RespacingError> {
        let timesteps = kept(spec.timesteps, steps, spacing)?;
        Ok(Self {
            trained: Diffusion::new(spec, shape, encoding)?,
            process: Diffusion::respaced(spec, shape, encoding, &timesteps)?,
            timesteps,
        })
    }

    /// The timestep below the k-th kept one: what x is at after its step. 0 is the data.
    pub fn below(&self, index: usize) -> u32 {
        if index == 0 { 0 } else { self.timesteps[index - 1].get() }
    }

    /// `count` of the kept timesteps, evenly spread and descending, the noisiest first; all where there are no more.
    pub fn spread(&self, count: usize) -> Vec<Timestep> {
        let last = self.timesteps.len() - 1;
        let count = count.clamp(1, last + 1);
        let gaps = (count - 1).max(1);
        (0..count).map(|k| self.timesteps[last - k * last / gaps]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Indices, as `tests/reference/sampling.py` prints them.
    fn indices(timesteps: u32, steps: &str, spacing: Spacing) -> Vec<usize> {
        kept(timesteps, &steps.parse().unwrap(), spacing).unwrap().iter().map(|t| t.index()).collect()
    }

    #[test]
    fn kept_timesteps_are_those_of_the_published_code() {
        use Spacing::*;
        #[rustfmt::skip]
        let three_sections = [
            0, 11, 22, 33, 44, 55, 66, 77, 88, 99,
            100, 107, 114, 121, 128, 135, 142, 149, 157, 164, 171, 178, 185, 192, 199,
            200, 205, 210, 216, 221, 226, 231, 236, 242, 247, 252, 257, 263, 268, 273, 278, 283, 289, 294, 299,
        ];
        assert_eq!(indices(300, "10,15,20", Iddpm), three_sections);
        // 6.5, 19.5 and 32.5 go to the even neighbour: 6, 20, 32.
        assert_eq!(indices(40, "7", Iddpm), [0, 6, 13, 20, 26, 32, 39]);
        // Sections of 4, 4 and 3; a single step is the first of its section.
        assert_eq!(indices(11, "2,1,3", Iddpm), [0, 3, 4, 8, 9, 10]);
        #[rustfmt::skip]
        assert_eq!(
            indices(1000, "25", Iddpm),
            [0, 42, 83, 125, 166, 208, 250, 291, 333, 375, 416, 458, 500, 541, 583, 624, 666, 708, 749, 791, 832, 874, 916, 957, 999]
        );
        assert_eq!(indices(1000, "ddim25", Iddpm), (0..1000).step_by(40).collect::<Vec<_>>());
        assert_eq!(indices(1000, "7", Leading), [0, 142, 284, 426, 568, 710, 852]);
        assert_eq!(indices(1000, "7", Linspace), [0, 166, 333, 500, 666, 832, 999]);
        assert_eq!(indices(1000, "7", Trailing), [142, 285, 428, 570, 713, 856, 999]);
        // Halves again: 62.5 goes to 62, 187.5 to 188.
        assert_eq!(indices(1000, "16", Trailing), [61, 124, 187, 249, 311, 374, 437, 499, 561, 624, 687, 749, 811, 874, 937, 999]);
        for spacing in [Iddpm, Leading, Linspace, Trailing] {
            assert_eq!(indices(50, "50", spacing), (0..50).collect::<Vec<_>>(), "{spacing}");
        }
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let of = |timesteps, steps: &str, spacing| kept(timesteps, &steps.parse().unwrap(), spacing).unwrap_err().to_string();
        assert_eq!(of(10, "11", Spacing::Leading), "11 steps cannot be kept of 10 timesteps");
        assert_eq!(of(10, "11", Spacing::Iddpm), "11 steps cannot be kept of 10 timesteps");
        assert_eq!(of(10, "2,6", Spacing::Iddpm), "6 steps cannot be kept of the 5 timesteps of section 2");
        assert_eq!(of(1000, "ddim501", Spacing::Iddpm), "no whole stride through 1000 timesteps keeps exactly 501");
        assert!(of(10, "2,2", Spacing::Trailing).contains("`trailing` takes a single number"));
        for bad in ["0", "", "10,", "ddim", "-3", "1.5"] {
            assert!(bad.parse::<Steps>().is_err(), "{bad}");
        }
    }
}
