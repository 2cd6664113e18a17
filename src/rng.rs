//! The only source of randomness: a pure function of (run seed, purpose, step, sample).
//!
//! Start at [`stream`]. Philox4x32-10 [Salmon11] turns a counter into words, so there is no state to save: a resumed
//! run draws what the undisturbed one would have drawn, in any number of threads and in any split of the batch, and two
//! cells of a grid that differ only in their schedule see the same noise. Normals are Box–Muller over polynomials made
//! of fused multiply-adds alone, which every IEEE machine rounds alike.

/// What randomness is for. Two purposes never share a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    Init = 1,
    BatchOrder = 2,
    Timestep = 3,
    Noise = 4,
    Dropout = 5,
    Flip = 6,
    /// Noise of evaluations: drawn with [`EVALUATION_SEED`], so that every run of every sweep is measured on the same draws.
    EvaluationNoise = 7,
    /// x_T and the noise of each reverse step.
    Sampling = 8,
    /// Synthetic data sets, drawn with their own fixed seed.
    ToyData = 9,
    /// Choice of examples for evaluation.
    Subset = 10,
    /// Directions of the sliced Wasserstein distance.
    Projection = 21,
}

/// The seed of every evaluation's noise, whatever the run's own seed is.
pub const EVALUATION_SEED: u64 = 0x5EED_0FEA;

/// Random numbers for one purpose at one step: index them by sample, and by lane where a sample needs several sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    key: [u32; 2],
    step: u32,
    /// Purpose in the low byte, lane above it.
    tag: u32,
}

/// The stream of `purpose` at `step` under `seed`.
pub fn stream(seed: u64, purpose: Purpose, step: u32) -> Stream {
    Stream { key: [seed as u32, (seed >> 32) as u32], step, tag: purpose as u32 }
}

const LANES: usize = 16;
type U = [u32; LANES];
type F = [f32; LANES];

impl Stream {
    /// Another sequence of the same purpose and step: a layer for dropout, a parameter for initialisation.
    /// `lane` has 24 bits.
    pub fn lane(self, lane: u32) -> Self {
        Stream { tag: (self.tag & 0xFF) | (lane << 8), ..self }
    }

    /// Key, step and tag: what Philox needs beside a block and a sample, for those who draw elsewhere.
    pub fn address(&self) -> [u32; 4] {
        [self.key[0], self.key[1], self.step, self.tag]
    }

    /// Four words at a place of a sample's sequence.
    pub fn words(&self, sample: u32, block: u32) -> [u32; 4] {
        philox([block, sample, self.step, self.tag], self.key)
    }

    /// A uniform number in [0, 1) with 53 random bits.
    pub fn uniform(&self, sample: u32, block: u32) -> f64 {
        let w = self.words(sample, block);
        (((u64::from(w[0]) << 32) | u64::from(w[1])) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A uniform integer in `0..bound`. The bias is below `bound / 2^64`.
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&self, sample: u32, block: u32, bound: u32) -> u32 {
        assert!(bound > 0, "no integer lies below 0");
        let w = self.words(sample, block);
        let word = (u64::from(w[0]) << 32) | u64::from(w[1]);
        ((u128::from(word) * u128::from(bound)) >> 64) as u32
    }

    /// A uniformly drawn order of `0..n` (Fisher–Yates).
    pub fn permutation(&self, n: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i as usize, self.below(0, i, i + 1) as usize);
        }
        order
    }

    /// Fills `out` with independent standard normals: the sequence of `sample`, from its start.
    pub fn normals(&self, sample: u32, out: &mut [f32]) {
        self.normals_each(sample, out.len(), out);
    }

    /// Fills `out` with the normals of consecutive samples, `each` numbers of a sample: those that [`Stream::normals`] gives
    /// for it alone.
    #[expect(clippy::redundant_closure, reason = "a function is called through a shim that is compiled for the oldest processor")]
    pub fn normals_each(&self, first: u32, each: usize, out: &mut [f32]) {
        let this = *self;
        crate::simd::dispatch(
            #[inline(always)]
            move || {
                this.fill(
                    first,
                    each,
                    out,
                    #[inline(always)]
                    |words| normals_of(words),
                );
            },
        );
    }

    /// Fills `out` with uniform numbers in [0, 1) of 24 random bits.
    pub fn uniforms(&self, sample: u32, out: &mut [f32]) {
        self.uniforms_each(sample, out.len(), out);
    }

    /// As [`Stream::normals_each`], of uniform numbers.
    #[expect(clippy::redundant_closure, reason = "as above")]
    pub fn uniforms_each(&self, first: u32, each: usize, out: &mut [f32]) {
        let this = *self;
        crate::simd::dispatch(
            #[inline(always)]
            move || {
                this.fill(
                    first,
                    each,
                    out,
                    #[inline(always)]
                    |words| uniforms_of(words),
                );
            },
        );
    }

    /// Writes the numbers of consecutive blocks, four to a block, of consecutive samples, `LANES` blocks at a time: a lane
    /// is a block of whichever sample is next, so that short sequences fill the vectors too.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "a lane is a place in several arrays")]
    fn fill(&self, first: u32, each: usize, out: &mut [f32], mut numbers: impl FnMut([U; 4]) -> [F; 4]) {
        if each == 0 {
            return;
        }
        let blocks = each.div_ceil(4);
        let total = out.len() / each * blocks;
        let (mut sample, mut block) = (0usize, 0usize);
        for at in (0..total).step_by(LANES) {
            let lanes = LANES.min(total - at);
            let mut counter = [[0; LANES], [0; LANES], [self.step; LANES], [self.tag; LANES]];
            let (start_sample, start_block) = (sample, block);
            for lane in 0..lanes {
                counter[0][lane] = block as u32;
                counter[1][lane] = first.wrapping_add(sample as u32);
                block += 1;
                if block == blocks {
                    (sample, block) = (sample + 1, 0);
                }
            }
            let drawn = numbers(philox_lanes(counter, self.key));
            let begin = start_sample * each + 4 * start_block;
            if start_sample == sample || (each == 4 * blocks && lanes == LANES) {
                // No sequence ends inside, or none leaves part of a block over: the numbers lie one behind the other.
                let end = (begin + 4 * lanes).min(out.len());
                for (j, x) in out[begin..end].iter_mut().enumerate() {
                    *x = drawn[j % 4][j / 4];
                }
            } else {
                let (mut s, mut b) = (start_sample, start_block);
                for lane in 0..lanes {
                    let n = 4.min(each - 4 * b);
                    let to = &mut out[s * each + 4 * b..][..n];
                    for (j, x) in to.iter_mut().enumerate() {
                        *x = drawn[j][lane];
                    }
                    b += 1;
                    if b == blocks {
                        (s, b) = (s + 1, 0);
                    }
                }
            }
        }
    }
}

const M0: u32 = 0xD251_1F53;
const M1: u32 = 0xCD9E_8D57;
const W0: u32 = 0x9E37_79B9;
const W1: u32 = 0xBB67_AE85;

/// Philox4x32 with ten rounds. [Salmon11, Fig. 2]
fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    philox_lanes(counter.map(|c| [c]), key).map(|w| w[0])
}

#[inline(always)]
fn philox_lanes<const N: usize>(mut c: [[u32; N]; 4], mut key: [u32; 2]) -> [[u32; N]; 4] {
    for _ in 0..10 {
        let mut next = [[0; N]; 4];
        for l in 0..N {
            let p0 = u64::from(M0) * u64::from(c[0][l]);
            let p1 = u64::from(M1) * u64::from(c[2][l]);
            next[0][l] = (p1 >> 32) as u32 ^ c[1][l] ^ key[0];
            next[1][l] = p1 as u32;
            next[2][l] = (p0 >> 32) as u32 ^ c[3][l] ^ key[1];
            next[3][l] = p0 as u32;
        }
        c = next;
        key = [key[0].wrapping_add(W0), key[1].wrapping_add(W1)];
    }
    c
}

const TWO_POW_MINUS_24: f32 = 1.0 / 16_777_216.0;

#[inline(always)]
fn uniforms_of(words: [U; 4]) -> [F; 4] {
    words.map(|w| w.map(|x| (x >> 8) as f32 * TWO_POW_MINUS_24))
}

/// Two Box–Muller pairs from each block.
#[inline(always)]
fn normals_of(words: [U; 4]) -> [F; 4] {
    let (a, b) = box_muller(words[0], words[1]);
    let (c, d) = box_muller(words[2], words[3]);
    [a, b, c, d]
}

#[inline(always)]
fn box_muller(radius_bits: U, angle_bits: U) -> (F, F) {
    let mut a = [0.0; LANES];
    let mut b = [0.0; LANES];
    for l in 0..LANES {
        // Never 0, so the logarithm is finite; the largest radius is 5.89.
        let u = ((radius_bits[l] >> 8) as f32 + 0.5) * TWO_POW_MINUS_24;
        let r = (-2.0 * ln(u)).max(0.0).sqrt();
        // The top two bits choose a quarter turn; the rest an angle within ±45° of its middle.
        let quarter = ((angle_bits[l] & 0x3FFF_FFFF) >> 6) as f32 * TWO_POW_MINUS_24 - 0.5;
        let (sin, cos) = sin_cos_eighth(quarter * std::f32::consts::FRAC_PI_2);
        let swap = (angle_bits[l] >> 30) & 1 == 1;
        let sign = if angle_bits[l] >> 31 == 1 { -r } else { r };
        let (x, y) = if swap { (-sin, cos) } else { (cos, sin) };
        a[l] = sign * x;
        b[l] = sign * y;
    }
    (a, b)
}

/// Natural logarithm of a positive normal number (Cephes `logf`, in fused multiply-adds), to about 1 ulp.
#[inline(always)]
fn ln(u: f32) -> f32 {
    // u = m · 2^e with m in [√½, √2).
    let bits = u.to_bits().wrapping_sub(0x3F35_04F3);
    let e = ((bits as i32) >> 23) as f32;
    let x = f32::from_bits((bits & 0x007F_FFFF).wrapping_add(0x3F35_04F3)) - 1.0;
    let z = x * x;
    let mut p = 7.037_683_6e-2_f32;
    for c in [-1.151_461e-1, 1.167_699_9e-1, -1.242_014_1e-1, 1.424_932_3e-1, -1.666_805_8e-1, 2.000_071_5e-1, -2.499_999_4e-1, 0.333_333_3]
    {
        p = p.mul_add(x, c);
    }
    let y = (p * x).mul_add(z, e * -2.121_944_4e-4);
    let y = z.mul_add(-0.5, y);
    e.mul_add(0.693_359_4, x + y)
}

/// Sine and cosine on [-π/4, π/4] (Cephes, in fused multiply-adds).
#[inline(always)]
fn sin_cos_eighth(x: f32) -> (f32, f32) {
    let z = x * x;
    let s = (-1.951_529_6e-4_f32).mul_add(z, 8.332_161e-3).mul_add(z, -1.666_665_5e-1);
    let sin = (s * z).mul_add(x, x);
    let c = 2.443_315_7e-5_f32.mul_add(z, -1.388_731_6e-3).mul_add(z, 4.166_664_6e-2);
    let cos = (c * z).mul_add(z, z.mul_add(-0.5, 1.0));
    (sin, cos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_answers() {
        // Known answers of Random123 1.14, kat_vectors, philox4x32 10.
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn logarithm_and_angles_are_accurate() {
        for i in 1..100_000u32 {
            let u = (i as f32 + 0.5) / 100_001.0;
            assert!((f64::from(ln(u)) - f64::from(u).ln()).abs() <= 2e-7 * f64::from(u).ln().abs().max(1e-1), "ln {u}");
            let x = (i as f32 / 100_000.0 - 0.5) * std::f32::consts::FRAC_PI_2;
            let (s, c) = sin_cos_eighth(x);
            assert!((f64::from(s) - f64::from(x).sin()).abs() < 1.2e-7 && (f64::from(c) - f64::from(x).cos()).abs() < 1.2e-7);
        }
    }

    #[test]
    fn normals_have_normal_moments_and_no_correlation() {
        let n = 1 << 20;
        let mut x = vec![0.0; n];
        stream(7, Purpose::Noise, 3).normals(11, &mut x);
        let mean = |f: &dyn Fn(f64) -> f64| x.iter().map(|&v| f(f64::from(v))).sum::<f64>() / n as f64;
        let s = (n as f64).sqrt();
        // Five standard errors of each moment of a standard normal.
        assert!(mean(&|v| v).abs() < 5.0 / s);
        assert!((mean(&|v| v * v) - 1.0).abs() < 5.0 * 2f64.sqrt() / s);
        assert!(mean(&|v| v.powi(3)).abs() < 5.0 * 15f64.sqrt() / s);
        assert!((mean(&|v| v.powi(4)) - 3.0).abs() < 5.0 * 96f64.sqrt() / s);
        for lag in [1, 2, 3, 4] {
            let c: f64 = x.windows(lag + 1).map(|w| f64::from(w[0]) * f64::from(w[lag])).sum::<f64>() / n as f64;
            assert!(c.abs() < 5.0 / s, "lag {lag}: {c}");
        }
        let beyond_two = x.iter().filter(|v| v.abs() > 2.0).count() as f64 / n as f64;
        assert!((beyond_two - 0.045_500).abs() < 5.0 * (0.0455f64 * 0.9545).sqrt() / s);
    }

    #[test]
    fn a_prefix_does_not_depend_on_the_length_asked_for() {
        let st = stream(1, Purpose::Noise, 5);
        let (mut long, mut short) = (vec![0.0; 1000], vec![0.0; 77]);
        st.normals(2, &mut long);
        st.normals(2, &mut short);
        assert_eq!(long[..77], short[..]);
    }

    #[test]
    fn samples_drawn_together_are_those_drawn_alone() {
        let st = stream(1, Purpose::Noise, 5).lane(3);
        for each in [1, 2, 3, 4, 5, 8, 63, 64, 65, 100] {
            for samples in [1, 2, 15, 16, 17, 40] {
                let (mut together, mut alone) = (vec![f32::NAN; each * samples], vec![f32::NAN; each * samples]);
                st.normals_each(7, each, &mut together);
                alone.chunks_mut(each).enumerate().for_each(|(i, x)| st.normals(7 + i as u32, x));
                assert_eq!(together, alone, "normals, {samples} of {each}");
                st.uniforms_each(7, each, &mut together);
                alone.chunks_mut(each).enumerate().for_each(|(i, x)| st.uniforms(7 + i as u32, x));
                assert_eq!(together, alone, "uniforms, {samples} of {each}");
                // And both are the words of the generator.
                let i = samples - 1;
                let word = st.words(7 + i as u32, ((each - 1) / 4) as u32)[(each - 1) % 4];
                assert_eq!(together[each * samples - 1], (word >> 8) as f32 * TWO_POW_MINUS_24);
            }
        }
        st.normals_each(7, 0, &mut []);
    }

    #[test]
    fn every_part_of_the_address_changes_the_numbers() {
        let draw = |seed, purpose, step, sample, lane| {
            let mut x = [0.0; 4];
            stream(seed, purpose, step).lane(lane).normals(sample, &mut x);
            x
        };
        let base = draw(1, Purpose::Noise, 1, 1, 0);
        for other in [
            draw(2, Purpose::Noise, 1, 1, 0),
            draw(1 << 32 | 1, Purpose::Noise, 1, 1, 0),
            draw(1, Purpose::Dropout, 1, 1, 0),
            draw(1, Purpose::Noise, 2, 1, 0),
            draw(1, Purpose::Noise, 1, 2, 0),
            draw(1, Purpose::Noise, 1, 1, 1),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn permutations_are_complete_and_integers_uniform() {
        let st = stream(3, Purpose::BatchOrder, 0);
        let mut order = st.permutation(1000);
        assert_ne!(order, (0..1000).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
        let mut counts = [0u32; 7];
        for i in 0..70_000 {
            counts[st.below(i, 0, 7) as usize] += 1;
        }
        let chi2: f64 = counts.iter().map(|&c| (f64::from(c) - 1e4).powi(2) / 1e4).sum();
        assert!(chi2 < 22.5, "chi-squared with 6 degrees of freedom at p = 0.001: {chi2}");
    }
}
