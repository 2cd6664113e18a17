//! Checkpoints: everything a run needs to go on as if it had never stopped.
//!
//! A safetensors file: `model.*`, `ema.*`, `adam_m.*`, `adam_v.*` under diffusers' names and in its layout, and
//! `window`, the open window of training losses, and `timestep_losses`, where t is drawn by them. Random numbers need no
//! state. The metadata names the run and the step
//! and holds a blake3 of the values, so that a damaged file is found before it is used.

use super::window::Window;
use crate::model::ParamLayout;
use crate::optim::Weights;
use crate::record::Evaluation;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::{BTreeMap, HashMap};

#[derive(serde::Serialize, serde::Deserialize)]
struct Header {
    schema: u32,
    run_id: String,
    step: u32,
    blake3: String,
    /// [`NUMERICS`] of the program that wrote it; empty in files of before it was told.
    #[serde(default)]
    code: String,
    /// A hash of every evaluation made before it; absent in files of before they were told.
    #[serde(default)]
    evaluations: Option<Vec<String>>,
    /// How many rows of losses there were; absent in files of before it was told.
    #[serde(default)]
    rows: Option<usize>,
}

const SCHEMA: u32 = 1;
const METADATA_KEY: &str = "ddpm_lab";

/// A hash of all code that decides numbers: the sources from `units` up to `train`, the locked dependencies, the compiler.
pub const NUMERICS: &str = env!("DDPM_LAB_NUMERICS");

/// The four buffers of the weights, by the prefix of their names.
fn buffers(weights: &Weights) -> [(&'static str, &Vec<f32>); 4] {
    [("model", &weights.raw), ("ema", &weights.ema), ("adam_m", &weights.first_moment), ("adam_v", &weights.second_moment)]
}

/// The bytes of a checkpoint.
///
/// # Errors
/// If the tensors cannot be serialised, which would be a fault of this code.
pub fn encode(
    layout: &ParamLayout,
    run_id: &str,
    weights: &Weights,
    window: &Window,
    timestep_losses: Option<&[f64]>,
    evaluations: &[Evaluation],
    rows: usize,
) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let mut tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for (prefix, flat) in buffers(weights) {
        for (name, shape, values) in layout.to_disk(flat) {
            tensors.insert(format!("{prefix}.{name}"), (Dtype::F32, shape, little_endian(&values, f32::to_le_bytes)));
        }
    }
    let mut insert = |name: &str, saved: &[f64]| {
        tensors.insert(name.to_owned(), (Dtype::F64, vec![saved.len()], little_endian(saved, f64::to_le_bytes)));
    };
    insert("window", &window.save());
    if let Some(losses) = timestep_losses {
        insert("timestep_losses", losses);
    }
    let header = Header {
        schema: SCHEMA,
        run_id: run_id.to_owned(),
        step: weights.step,
        code: NUMERICS.to_owned(),
        evaluations: Some(evaluations.iter().map(fingerprint).collect()),
        rows: Some(rows),
        blake3: digest(tensors.iter().map(|(name, (_, _, bytes))| (name.as_str(), bytes.as_slice()))),
    };
    let metadata = HashMap::from([(METADATA_KEY.to_owned(), serde_json::to_string(&header).expect("a struct of strings and numbers"))]);
    let views: Vec<(&str, TensorView<'_>)> = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect::<Result<_, safetensors::SafeTensorError>>()?;
    safetensors::serialize(views, Some(metadata))
}

/// What a checkpoint of run `run_id` holds: the weights, the open window, and the losses by which t is drawn.
pub type State = (Weights, Window, Option<Vec<f64>>);

/// What a checkpoint says of how it came about.
pub struct Origin {
    /// [`NUMERICS`] of the program that wrote it.
    pub code: String,
    /// How many rows of losses there were.
    pub rows: Option<usize>,
    evaluations: Option<Vec<String>>,
}

/// `None` where it cannot be read.
pub fn origin(bytes: &[u8]) -> Option<Origin> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).ok()?;
    let header: Header = serde_json::from_str(metadata.metadata().as_ref()?.get(METADATA_KEY)?).ok()?;
    Some(Origin { code: header.code, rows: header.rows, evaluations: header.evaluations })
}

impl Origin {
    /// Of the evaluations on record those that were made before the checkpoint; `None` if one of them is not as it was.
    pub fn of_before(&self, found: Vec<Evaluation>) -> Option<Vec<Evaluation>> {
        let Some(told) = &self.evaluations else { return Some(found) };
        let kept: Vec<Evaluation> = found.into_iter().filter(|e| told.contains(&fingerprint(e))).collect();
        (kept.len() == told.len()).then_some(kept)
    }
}

fn fingerprint(evaluation: &Evaluation) -> String {
    let line = serde_json::to_vec(evaluation).expect("an evaluation is numbers and names");
    blake3::hash(&line).to_hex()[..16].to_owned()
}

/// The state in a checkpoint of run `run_id`.
///
/// # Errors
/// A sentence, if the file is damaged or belongs to another run or another network.
pub fn decode(layout: &ParamLayout, run_id: &str, timesteps: usize, bytes: &[u8]) -> Result<State, String> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| format!("it is no whole safetensors file ({e})"))?;
    let file = SafeTensors::deserialize(bytes).map_err(|e| format!("it is no whole safetensors file ({e})"))?;
    let text = metadata.metadata().as_ref().and_then(|m| m.get(METADATA_KEY)).ok_or("it has no ddpm_lab metadata")?;
    let header: Header = serde_json::from_str(text).map_err(|e| format!("its metadata cannot be read ({e})"))?;
    if header.schema != SCHEMA {
        return Err(format!("it has schema {}, this version reads {SCHEMA}", header.schema));
    }
    if header.run_id != run_id {
        return Err(format!("it belongs to run {}", header.run_id));
    }
    let mut names = file.names();
    names.sort_unstable();
    let views: Vec<(&str, TensorView<'_>)> =
        names.into_iter().map(|n| Ok((n, file.tensor(n).map_err(|e| e.to_string())?))).collect::<Result<_, String>>()?;
    if digest(views.iter().map(|(n, v)| (*n, v.data()))) != header.blake3 {
        return Err("its values do not match their blake3 hash".to_owned());
    }
    let buffer = |prefix: &str| {
        layout
            .from_disk(|name| {
                let view = file.tensor(&format!("{prefix}.{name}")).ok()?;
                Some((view.shape().to_vec(), view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()))
            })
            .map_err(|e| e.to_string())
    };
    let weights = Weights {
        step: header.step,
        raw: buffer("model")?,
        ema: buffer("ema")?,
        first_moment: buffer("adam_m")?,
        second_moment: buffer("adam_v")?,
    };
    let numbers = |view: &TensorView<'_>| -> Vec<f64> {
        view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("eight bytes"))).collect()
    };
    let saved = numbers(&file.tensor("window").map_err(|e| e.to_string())?);
    let window = Window::load(timesteps, &saved).ok_or("its window has another number of timesteps")?;
    let timestep_losses = file.tensor("timestep_losses").ok().map(|view| numbers(&view));
    Ok((weights, window, timestep_losses))
}

/// Numbers as a file has them; into memory of the right size, several times faster than byte by byte.
fn little_endian<T: Copy, const N: usize>(numbers: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    let mut file = vec![0; N * numbers.len()];
    file.as_chunks_mut().0.iter_mut().zip(numbers).for_each(|(to, &number)| *to = bytes(number));
    file
}

/// blake3 over names and values in the order of names.
fn digest<'a>(tensors: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, bytes) in tensors {
        hasher.update(name.as_bytes()).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    }
    hasher.finalize().to_hex().to_string()
}
