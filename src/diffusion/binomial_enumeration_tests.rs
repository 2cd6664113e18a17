//! Whole bounds of the Binomial process, by enumeration of every path, and the heartbeat, whose entropy is known.

use super::binomial_tests::{row, spec};
use super::bound::{self, BoundOptions};
use super::timestep_plan::TimestepPlan;
use super::*;
use crate::data::{self, Shape};
use crate::rng::{Purpose, stream};
use crate::units::Timestep;
use std::sync::atomic::AtomicBool;

type Bits = Vec<bool>;

/// Bits of a heartbeat, and its phases.
const LENGTH: usize = 20;
const PERIOD: usize = 5;

/// Every sequence of `dims` bits.
fn all(dims: usize) -> Vec<Bits> {
    (0..1usize << dims).map(|k| (0..dims).map(|j| k >> j & 1 == 1).collect()).collect()
}

fn signs(bits: &[bool]) -> Vec<f32> {
    bits.iter().map(|b| if *b { 1.0 } else { -1.0 }).collect()
}

/// Every heartbeat with its probability: the distribution itself.
fn heartbeats() -> Vec<(f64, Bits)> {
    data::heartbeats().chunks_exact(LENGTH).map(|x| (1.0 / PERIOD as f64, x.iter().map(|x| *x > 0.0).collect())).collect()
}

/// The probability of `x` where each bit is 1 with the probability of `rates`.
fn product(rates: impl IntoIterator<Item = f64>, x: &[bool]) -> f64 {
    rates.into_iter().zip(x).map(|(r, x)| if *x { r } else { 1.0 - r }).product()
}

/// q(x_t | x_{t−1}) or, with `kept` = ᾱ_t, q(x_t | x_0): the definition.
fn forward(kept: f64, pi: f64, from: &[bool], to: &[bool]) -> f64 {
    product(from.iter().map(|x| kept * f64::from(u8::from(*x)) + (1.0 - kept) * pi), to)
}

/// p(x_{t−1} | x_t) of a network that puts out `logits`: Σ over x_0 of Bayes' rule on the definition, bit by bit.
fn reverse(d: &BinomialDiffusion, t: Timestep, x_t: &[bool], logits: &[f64], before: &[bool]) -> f64 {
    let i = t.index();
    let rates = x_t.iter().zip(logits).map(|(x_t, logit)| {
        let says = 1.0 / (1.0 + (-logit).exp());
        [(false, 1.0 - says), (true, says)]
            .into_iter()
            .filter(|(_, p)| *p > 0.0)
            .map(|(x_0, p)| {
                let joint = |previous: bool| {
                    forward(d.schedule.alpha_bars_prev[i], d.pi, &[x_0], &[previous])
                        * forward(1.0 - d.schedule.betas[i], d.pi, &[previous], &[*x_t])
                };
                p * joint(true) / (joint(true) + joint(false))
            })
            .sum::<f64>()
    });
    product(rates, before)
}

/// A logit that leaves nothing of the other value in `f64`.
const CERTAIN: f64 = 1e4;

/// The exact probability of each bit of x_0 given x_t, of data that takes few values.
#[derive(Clone, Debug)]
struct BitsOracle<'a> {
    diffusion: &'a BinomialDiffusion,
    /// Sequences with their probabilities.
    data: Vec<(f64, Vec<bool>)>,
}

impl<'a> BitsOracle<'a> {
    fn new(diffusion: &'a BinomialDiffusion, data: Vec<(f64, Vec<bool>)>) -> Self {
        assert!(
            !data.is_empty() && data.iter().all(|(p, bits)| *p > 0.0 && bits.len() == diffusion.shape().dims()),
            "sequences have the data's shape"
        );
        Self { diffusion, data }
    }

    /// log p(x_0^j = 1 | x_t) − log p(x_0^j = 0 | x_t) for each j, from p(x_0 | x_t) ∝ p(x_0) Π_j q(x_t^j | x_0^j).
    fn logits(&self, t: Timestep, x_t: &[bool]) -> Vec<f64> {
        let log_q: [[f64; 2]; 2] = [false, true].map(|x_0| {
            let one = self.diffusion.rate(t, x_0);
            [(1.0 - one).ln(), one.ln()]
        });
        let log_joint: Vec<f64> = self
            .data
            .iter()
            .map(|(p, bits)| p.ln() + bits.iter().zip(x_t).map(|(x_0, x_t)| log_q[usize::from(*x_0)][usize::from(*x_t)]).sum::<f64>())
            .collect();
        let of = |j: usize, value: bool| {
            let terms = || self.data.iter().zip(&log_joint).filter(move |((_, bits), _)| bits[j] == value).map(|(_, l)| *l);
            let largest = terms().fold(f64::NEG_INFINITY, f64::max);
            if largest == f64::NEG_INFINITY { largest } else { largest + terms().map(|l| (l - largest).exp()).sum::<f64>().ln() }
        };
        (0..x_t.len()).map(|j| (of(j, true) - of(j, false)).clamp(-CERTAIN, CERTAIN)).collect()
    }
}

impl Denoiser for BitsOracle<'_> {
    fn predict(&self, x_t: &[f32], t: &[Timestep], output: &mut [f32]) -> Result<(), DenoiserError> {
        let dims = self.diffusion.shape().dims();
        for ((x_t, t), output) in x_t.chunks_exact(dims).zip(t).zip(output.chunks_exact_mut(dims)) {
            let bits: Vec<bool> = x_t.iter().map(|x| *x > 0.0).collect();
            for (out, logit) in output.iter_mut().zip(self.logits(*t, &bits)) {
                *out = logit as f32;
            }
        }
        Ok(())
    }

    fn batch(&self) -> usize {
        64
    }
}

/// The bound of one x_0 in bits, as evaluation computes it: the prior and, over every x_t, the terms.
fn bound(d: &BinomialDiffusion, network: &dyn Fn(Timestep, &[bool]) -> Vec<f64>, x_0: &[bool]) -> f64 {
    let dims = x_0.len();
    let mut bits = d.prior_bits_per_dim(&signs(x_0));
    for i in 0..d.timesteps() {
        let t = Timestep::from_index(i);
        for x_t in all(dims) {
            let output: Vec<f32> = network(t, &x_t).iter().map(|l| *l as f32).collect();
            let terms = d.terms(t, &signs(x_0), &signs(&x_t), &output);
            bits += forward(d.schedule.alpha_bars[i], d.pi, x_0, &x_t) * terms.vb;
        }
    }
    bits * dims as f64
}

/// A network without sense: logits that depend on everything.
fn any_network(t: Timestep, x_t: &[bool]) -> Vec<f64> {
    let place = x_t.iter().fold(1u32, |k, b| 2 * k + u32::from(*b));
    let mut logits = vec![0.0f32; x_t.len()];
    stream(17, Purpose::ToyData, t.get()).normals(place, &mut logits);
    logits.iter().map(|l| f64::from(2.0 * l)).collect()
}

#[test]
fn the_bound_is_the_mean_log_ratio_over_every_path() {
    // Σ over x_1..x_T of q(x_1..T | x_0) log2 [q(x_1..T | x_0) / p(x_0..T)]: the definition, before it is cut into terms.
    for (schedule, pi, dims, steps) in [(ScheduleKind::Jsd, 0.2, 2, 4), (ScheduleKind::Cosine, 0.5, 3, 3), (ScheduleKind::Jsd, 0.7, 1, 6)] {
        let d = BinomialDiffusion::new(&spec(schedule, steps, pi), row(dims)).unwrap();
        for x_0 in all(dims) {
            // (x_t, log q so far, log p so far without p(x_T), q).
            let mut paths = vec![(x_0.clone(), 0.0, 0.0, 1.0)];
            for i in 0..d.timesteps() {
                let t = Timestep::from_index(i);
                paths = paths
                    .iter()
                    .flat_map(|(x, log_q, log_p, q)| {
                        all(dims)
                            .into_iter()
                            .map(|next| {
                                let step = forward(1.0 - d.schedule.betas[i], pi, x, &next);
                                let back = reverse(&d, t, &next, &any_network(t, &next), x);
                                (next, log_q + step.log2(), log_p + back.log2(), q * step)
                            })
                            .collect::<Vec<_>>()
                    })
                    .collect();
            }
            let by_path: f64 = paths.iter().map(|(x, log_q, log_p, q)| q * (log_q - log_p - product(vec![pi; dims], x).log2())).sum();
            let by_terms = bound(&d, &any_network, &x_0);
            assert!((by_path - by_terms).abs() < 1e-9 * by_path, "{schedule} {x_0:?}: {by_path} {by_terms}");
            // And it is a bound: the model's own probability of x_0, summed over every path, is above it.
            let p: f64 = paths.iter().map(|(x, _, log_p, _)| log_p.exp2() * product(vec![pi; dims], x)).sum();
            assert!(by_terms > -p.log2(), "{schedule} {x_0:?}: {by_terms} {}", -p.log2());
        }
    }
}

#[test]
fn the_exact_model_of_independent_bits_costs_their_information_and_no_more() {
    // Bits of rate π keep it at every t, so p(x_T) = q(x_T), and the bound of every single x_0 is −log2 p(x_0).
    let pi = 0.3;
    for dims in [1, 2] {
        let d = BinomialDiffusion::new(&spec(ScheduleKind::Linear, 6, pi), row(dims)).unwrap();
        let data = all(dims).into_iter().map(|x| (product(vec![pi; dims], &x), x)).collect();
        let oracle = BitsOracle::new(&d, data);
        for x_0 in all(dims) {
            let bits = bound(&d, &|t, x_t| oracle.logits(t, x_t), &x_0);
            let information = -product(vec![pi; dims], &x_0).log2();
            assert!((bits - information).abs() < 1e-6, "{x_0:?}: {bits} {information}");
        }
    }
}

#[test]
fn the_exact_model_of_dependent_bits_costs_their_entropy_and_what_steps_bit_by_bit_cannot_say() {
    // E[bound] = H(x_0) + KL(q(x_T) ‖ p(x_T)) + Σ_t E[total correlation of x_{t−1} given x_t]: the reverse step draws each
    // bit by itself, and only that part shrinks as T grows.
    let pi = 0.4;
    let data: Vec<(f64, Bits)> = vec![
        (0.5, vec![true, true, false]),
        (0.2, vec![false, false, false]),
        (0.2, vec![false, true, true]),
        (0.1, vec![true, false, true]),
    ];
    let entropy: f64 = data.iter().map(|(p, _)| -p * p.log2()).sum();
    let mut excess = Vec::new();
    for steps in [4, 32] {
        let d = BinomialDiffusion::new(&spec(ScheduleKind::Jsd, steps, pi), row(3)).unwrap();
        let oracle = BitsOracle::new(&d, data.clone());
        let expected: f64 = data.iter().map(|(p, x_0)| p * bound(&d, &|t, x_t| oracle.logits(t, x_t), x_0)).sum();
        let marginal = |i: usize, x: &[bool]| -> f64 {
            data.iter()
                .map(|(p, x_0)| p * if i == 0 { f64::from(u8::from(x_0 == x)) } else { forward(d.schedule.alpha_bars[i - 1], pi, x_0, x) })
                .sum()
        };
        let mut by_hand = entropy;
        for x in all(3) {
            let q = marginal(d.timesteps(), &x);
            by_hand += q * (q / product(vec![pi; 3], &x)).log2();
        }
        for i in 0..d.timesteps() {
            for x_t in all(3) {
                let joint: Vec<(Bits, f64)> =
                    all(3).into_iter().map(|x| (x.clone(), marginal(i, &x) * forward(1.0 - d.schedule.betas[i], pi, &x, &x_t))).collect();
                let total: f64 = joint.iter().map(|(_, p)| p).sum();
                let rates: Vec<f64> = (0..3).map(|j| joint.iter().filter(|(x, _)| x[j]).map(|(_, p)| p / total).sum::<f64>()).collect();
                for (x, p) in joint.iter().filter(|(_, p)| *p > 0.0) {
                    by_hand += p * (p / total / product(rates.iter().copied(), x)).log2();
                }
            }
        }
        assert!((expected - by_hand).abs() < 1e-6, "T = {steps}: {expected} {by_hand}");
        excess.push(expected - entropy);
    }
    assert!(excess[1] < 0.3 * excess[0] && excess[1] > 0.0, "{excess:?}");
}

/// The bound of the exact denoiser of the heartbeat in bits a sequence: no network does better at this T.
///
/// Given x_t the phase depends on the number of ones among the four places of each residue mod 5 alone, so the expectation
/// over 2^20 values of x_t is a sum over 5^5; by symmetry the true phase is 0, and residues 1 to 4 count alike.
fn heartbeat_floor(d: &BinomialDiffusion) -> f64 {
    const EACH: usize = LENGTH / PERIOD;
    let choose = [1.0, 4.0, 6.0, 4.0, 1.0];
    let kl = |q: f64, [zero, one]: [f64; 2]| {
        let part = |q: f64, p: f64| if q == 0.0 { 0.0 } else { q * (q / p).log2() };
        part(q, one) + part(1.0 - q, zero)
    };
    let mut bits = LENGTH as f64 * d.prior_bits_per_dim(&signs(&heartbeats()[0].1));
    for i in 0..d.timesteps() {
        let t = Timestep::from_index(i);
        let [a, b] = [d.rate(t, false), d.rate(t, true)];
        let count = |r: f64| [0, 1, 2, 3, 4].map(|k| choose[k] * r.powi(k as i32) * (1.0 - r).powi((EACH - k) as i32));
        let [absent, present] = [count(a), count(b)];
        // How much likelier k ones make the phase than the same ones without a beat there.
        let odds: [f64; 5] = [0, 1, 2, 3, 4].map(|k| (b / a).powi(k as i32) * ((1.0 - b) / (1.0 - a)).powi((EACH - k) as i32));
        for code in 0..5usize.pow(5) {
            let k = [0, 1, 2, 3, 4].map(|r| code / 5usize.pow(r) % 5);
            let weight = present[k[0]] * k[1..].iter().map(|k| absent[*k]).product::<f64>();
            let total: f64 = k.iter().map(|k| odds[*k]).sum();
            for (residue, times) in [(0, 1.0), (1, 4.0)] {
                let others: f64 = (0..5).filter(|r| *r != residue).map(|r| odds[k[r]]).sum();
                let (yes, no) = (odds[k[residue]] / total, others / total);
                for (x_t, n) in [(true, k[residue]), (false, EACH - k[residue])].into_iter().filter(|(_, n)| *n > 0) {
                    let [from_zero, from_one] = [d.posterior(t, x_t, false), d.posterior(t, x_t, true)];
                    let p = [yes * (1.0 - from_one) + no * (1.0 - from_zero), yes * from_one + no * from_zero];
                    bits += weight * times * n as f64 * kl(if residue == 0 { from_one } else { from_zero }, p);
                }
            }
        }
    }
    bits
}

fn heartbeat(timesteps: u32) -> BinomialDiffusion {
    BinomialDiffusion::new(&spec(ScheduleKind::Jsd, timesteps, 0.2), Shape { height: 1, width: LENGTH, channels: 1 }).unwrap()
}

#[test]
fn the_heartbeat_has_a_floor_just_above_its_entropy() {
    let entropy = 5f64.log2();
    let floors: Vec<f64> = [40, 200, 2000].map(|t| heartbeat_floor(&heartbeat(t))).to_vec();
    assert!(floors.windows(2).all(|w| w[0] > w[1]) && floors[2] > entropy, "{floors:?}");
    // The excess is of the order 1/T. `experiments/papers/sd15_heartbeat.toml` quotes the last one.
    assert!((floors[2] - 2.3244).abs() < 5e-5, "{floors:?}");
    let ratio = (floors[1] - entropy) / (floors[2] - entropy);
    assert!((9.0..11.0).contains(&ratio), "{floors:?}");
}

#[test]
fn an_evaluation_with_the_exact_denoiser_finds_the_floor_and_its_samples_are_heartbeats() {
    let inner = heartbeat(100);
    let d = Diffusion::Binomial(inner.clone());
    let oracle = BitsOracle::new(&inner, heartbeats());
    let count = 400;
    let examples: Vec<f32> = (0..count).flat_map(|i| signs(&heartbeats()[i % PERIOD].1)).collect();
    let stop = AtomicBool::new(false);
    let plan = TimestepPlan::all(100, 1);
    let options = BoundOptions { timesteps: &plan, floor: None, stop: &stop, progress: &mut |_, _| {}, each: &mut |_, _| {} };
    let estimate = bound::evaluate(&d, &oracle, &examples, options).unwrap();
    let (bits, error) = (20.0 * estimate.bits_per_dim(), 20.0 * estimate.standard_error());
    let floor = heartbeat_floor(&inner);
    assert!((bits - floor).abs() < 4.0 * error && error < 0.1, "{bits} ± {error}, floor {floor}");

    let samples = sampling::ancestral(&d, &oracle, 1000, &stop).unwrap();
    let mut phases = [0usize; PERIOD];
    for x in samples.chunks_exact(LENGTH) {
        if let Some(phase) = heartbeats().iter().position(|(_, bits)| signs(bits) == x) {
            phases[phase] += 1;
        }
    }
    let whole: usize = phases.iter().sum();
    // Steps that draw bit by bit may break a few; the phases are alike.
    assert!(whole > 990, "{phases:?}");
    let expected = whole as f64 / PERIOD as f64;
    let chi2: f64 = phases.iter().map(|n| (*n as f64 - expected).powi(2) / expected).sum();
    assert!(chi2 < 18.5, "{phases:?}");
}
