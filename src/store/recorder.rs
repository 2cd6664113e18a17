//! `losses.parquet`: writing the rows of a run and reading them back.
//!
//! Start at [`write_losses`] and [`read_losses`]. Equal rows give equal bytes: one row group per 262,144 rows, no
//! clock, host or path. The footer carries a blake3 of the values, so a reader of this crate notices a flipped bit
//! that Parquet itself would pass on as a number; other readers ignore it.

use super::error::StoreError;
use super::schema::{RUN_COLUMNS, RunColumns, columns};
use super::{LossTable, SCHEMA, fs};
use crate::named::NamedEnum;
use crate::record::{LossRow, Split, Term, Weights};
use polars::prelude::*;
use std::io::Cursor;
use std::path::Path;

/// The file's name inside a run's folder.
pub const LOSSES: &str = "losses.parquet";
const KEY_SCHEMA: &str = "ddpm-lab.schema";
const KEY_HASH: &str = "ddpm-lab.blake3";

type Result<T> = std::result::Result<T, StoreError>;

/// Replaces `dir/losses.parquet` by `rows`, in their order. Rows that no sample fell into are left out.
///
/// Returns the blake3 of the file, for [`Manifest::files`](super::Manifest::files).
pub fn write_losses(dir: &Path, run: &RunColumns, rows: &[LossRow]) -> Result<String> {
    write_rows(&dir.join(LOSSES), run, rows)
}

/// As [`write_losses`], to a file of any name.
pub fn write_rows(path: &Path, run: &RunColumns, rows: &[LossRow]) -> Result<String> {
    let rows: Vec<&LossRow> = rows.iter().filter(|row| row.counts()).collect();
    let bytes = encode(run, &rows).map_err(|e| StoreError::Encode { path: path.to_path_buf(), what: e.to_string() })?;
    fs::write_atomic(path, &bytes)?;
    Ok(fs::hash(&bytes))
}

fn encode(run: &RunColumns, rows: &[&LossRow]) -> PolarsResult<Vec<u8>> {
    let mut frame = frame(run, rows)?;
    let footer = vec![(KEY_SCHEMA.to_string(), SCHEMA.to_string()), (KEY_HASH.to_string(), content_hash(rows.iter().copied()))];
    let mut bytes = Vec::new();
    ParquetWriter::new(&mut bytes)
        .with_compression(ParquetCompression::Zstd(None))
        // One row group: a reader could skip nothing by them.
        .with_statistics(StatisticsOptions::empty())
        .with_key_value_metadata(Some(KeyValueMetadata::from_static(footer)))
        .set_parallel(false)
        .finish(&mut frame)?;
    Ok(sealed(bytes))
}

/// What stands before the hash of a whole file.
const SEAL: &[u8; 16] = b"ddpm-lab seals: ";

/// A Parquet file with a blake3 of its bytes between its pages and its footer, where no reader looks. A damaged footer can
/// make a reader ask for more memory than there is, which ends the process: so it must be found before anything is read.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let hash = blake3::hash(&bytes);
    let footer = bytes.last_chunk::<8>().map_or(0, |end| u32::from_le_bytes([end[0], end[1], end[2], end[3]]) as usize);
    let at = bytes.len().saturating_sub(footer + 8);
    bytes.splice(at..at, SEAL.iter().chain(hash.as_bytes()).copied());
    bytes
}

/// Whether the bytes are those that were sealed; files of before there were seals pass.
fn seal_holds(bytes: &[u8]) -> bool {
    let Some(at) = bytes.windows(SEAL.len()).rposition(|window| window == SEAL) else { return true };
    let (before, after) = (&bytes[..at], &bytes[at + SEAL.len()..]);
    after.split_first_chunk::<32>().is_some_and(|(told, rest)| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(before).update(rest);
        hasher.finalize().as_bytes() == told
    })
}

fn frame(run: &RunColumns, rows: &[&LossRow]) -> PolarsResult<DataFrame> {
    let height = rows.len();
    let int = |what: &str, value: u32| i32::try_from(value).map_err(|_| polars_err!(ComputeError: "{what} {value} is above 2^31"));
    let same = |name: &str, value: &str| StringChunked::full(name.into(), value, height).into_column();
    let names = |name: &str, of: &dyn Fn(&LossRow) -> &'static str| {
        StringChunked::from_iter_values(name.into(), rows.iter().map(|row| of(row))).into_column()
    };
    let floats = |name: &str, of: &dyn Fn(&LossRow) -> f64| Column::new(name.into(), rows.iter().map(|row| of(row)).collect::<Vec<f64>>());
    let options = |name: &str, of: &dyn Fn(&LossRow) -> Option<f64>| {
        Column::new(name.into(), rows.iter().map(|row| of(row)).collect::<Vec<Option<f64>>>())
    };
    let t = rows.iter().map(|row| int("t", row.t)).collect::<PolarsResult<Vec<i32>>>()?;
    DataFrame::new_infer_height(vec![
        same("run_id", &run.run_id),
        same("slug", &run.slug),
        same("schedule", &run.schedule),
        same("loss", &run.loss),
        same("prediction", &run.prediction),
        same("variance", &run.variance),
        same("model", &run.model),
        same("data", &run.data),
        Column::new("timesteps".into(), vec![int("timesteps", run.timesteps)?; height]),
        Column::new("batch_size".into(), vec![int("batch_size", run.batch_size)?; height]),
        Column::new("lr".into(), vec![run.lr; height]),
        Column::new("seed".into(), vec![run.seed; height]),
        names("split", &|row| row.split.name()),
        names("weights", &|row| row.weights.name()),
        Column::new("step".into(), rows.iter().map(|row| row.step).collect::<Vec<i64>>()),
        Column::new("t".into(), t),
        names("term", &|row| row.term().name()),
        floats("t_weight", &|row| row.t_weight),
        Column::new("n".into(), rows.iter().map(|row| row.n).collect::<Vec<u32>>()),
        Column::new("n_nonfinite".into(), rows.iter().map(|row| row.n_nonfinite).collect::<Vec<u32>>()),
        options("mse_mean", &|row| row.mse.map(|mse| mse.0)),
        options("mse_m2", &|row| row.mse.map(|mse| mse.1)),
        options("x0_mse_mean", &|row| row.x0_mse_mean),
        floats("vb_mean", &|row| row.vb.0),
        floats("vb_m2", &|row| row.vb.1),
        options("mse_floor", &|row| row.mse_floor),
        options("vb_floor", &|row| row.vb_floor),
        options("grad_norm_mean", &|row| row.grad_norm_mean),
    ])
}

/// blake3 over the values of the rows.
fn content_hash<'a>(rows: impl Iterator<Item = &'a LossRow>) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut bytes = Vec::with_capacity(160);
    for row in rows {
        bytes.clear();
        put(row, &mut bytes);
        hasher.update(&bytes);
    }
    hasher.finalize().to_hex().to_string()
}

/// The values of a row: every field in the order of [`LossRow`], absent ones marked.
fn put(row: &LossRow, bytes: &mut Vec<u8>) {
    bytes.extend([row.split as u8, row.weights as u8]);
    bytes.extend(row.step.to_le_bytes());
    bytes.extend([row.t, row.n, row.n_nonfinite].map(u32::to_le_bytes).as_flattened());
    let (mse_mean, mse_m2) = row.mse.unzip();
    let present = [Some(row.t_weight), Some(row.vb.0), Some(row.vb.1)];
    let optional = [mse_mean, mse_m2, row.x0_mse_mean, row.mse_floor, row.vb_floor, row.grad_norm_mean];
    for value in present.into_iter().chain(optional) {
        match value {
            Some(value) => {
                bytes.push(1);
                bytes.extend(value.to_bits().to_le_bytes());
            }
            None => bytes.push(0),
        }
    }
}

/// Takes from `bytes` what [`put`] put there; `None` if that is no row.
fn take(bytes: &mut &[u8]) -> Option<LossRow> {
    fn exactly<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
        let (first, rest) = bytes.split_first_chunk::<N>()?;
        *bytes = rest;
        Some(*first)
    }
    fn float(bytes: &mut &[u8]) -> Option<Option<f64>> {
        match exactly::<1>(bytes)? {
            [0] => Some(None),
            [1] => Some(Some(f64::from_bits(u64::from_le_bytes(exactly(bytes)?)))),
            _ => None,
        }
    }
    let [split, weights] = exactly(bytes)?;
    let split = *Split::ALL.iter().find(|s| **s as u8 == split)?;
    let weights = *Weights::ALL.iter().find(|w| **w as u8 == weights)?;
    let step = i64::from_le_bytes(exactly(bytes)?);
    let mut count = || Some(u32::from_le_bytes(exactly(bytes)?));
    let (t, n, n_nonfinite) = (count()?, count()?, count()?);
    let (t_weight, vb) = (float(bytes)??, (float(bytes)??, float(bytes)??));
    let mse = float(bytes)?.zip(float(bytes)?);
    let (x0_mse_mean, mse_floor, vb_floor, grad_norm_mean) = (float(bytes)?, float(bytes)?, float(bytes)?, float(bytes)?);
    Some(LossRow { split, weights, step, t, t_weight, n, n_nonfinite, mse, x0_mse_mean, vb, mse_floor, vb_floor, grad_norm_mean })
}

/// Replaces `path` by `rows` in a form that costs nothing to write: their values and a blake3 of them. For rows on their
/// way to the table.
pub fn write_fresh_rows(path: &Path, rows: &[LossRow]) -> Result<()> {
    let mut bytes = Vec::with_capacity(96 * rows.len() + 32);
    rows.iter().filter(|row| row.counts()).for_each(|row| put(row, &mut bytes));
    let hash = blake3::hash(&bytes);
    bytes.extend(hash.as_bytes());
    fs::write_atomic(path, &bytes)
}

/// What [`write_fresh_rows`] wrote.
///
/// # Errors
/// [`StoreError::Corrupt`] if the file is torn or changed.
pub fn read_fresh_rows(path: &Path) -> Result<Vec<LossRow>> {
    let bytes = fs::read(path)?;
    let torn = || StoreError::corrupt(path, "its values do not match its checksum");
    let (mut values, hash) = bytes.split_last_chunk::<32>().ok_or_else(torn)?;
    if blake3::hash(values).as_bytes() != hash {
        return Err(torn());
    }
    let mut rows = Vec::new();
    while !values.is_empty() {
        rows.push(take(&mut values).ok_or_else(torn)?);
    }
    Ok(rows)
}

/// The rows of `dir/losses.parquet` as [`write_losses`] was given them: what a resumed run goes on from.
///
/// # Errors
/// [`StoreError::Corrupt`], naming the path, if the file is torn, changed, or not ours; never a panic.
pub fn read_rows(dir: &Path) -> Result<Vec<LossRow>> {
    let path = &dir.join(LOSSES);
    let bytes = fs::read(path)?;
    // Parquet readers of damaged files panic here and there (a length that is no length); that is an error of the file.
    let decoded = std::panic::catch_unwind(move || decode(bytes));
    match decoded {
        Ok(Ok(rows)) => Ok(rows),
        Ok(Err(what)) => Err(StoreError::corrupt(path, what)),
        Err(_) => Err(StoreError::corrupt(path, "its structure makes no sense")),
    }
}

/// `dir/losses.parquet` in columns, without those that name the run.
///
/// # Errors
/// As [`read_rows`].
pub fn read_losses(dir: &Path) -> Result<LossTable> {
    let rows = read_rows(dir)?;
    let floats = |of: &dyn Fn(&LossRow) -> Option<f64>| rows.iter().map(|row| of(row).unwrap_or(f64::NAN)).collect::<Vec<f64>>();
    Ok(LossTable {
        split: rows.iter().map(|row| row.split).collect(),
        weights: rows.iter().map(|row| row.weights).collect(),
        step: rows.iter().map(|row| row.step).collect(),
        t: rows.iter().map(|row| row.t).collect(),
        t_weight: rows.iter().map(|row| row.t_weight).collect(),
        n: rows.iter().map(|row| row.n).collect(),
        n_nonfinite: rows.iter().map(|row| row.n_nonfinite).collect(),
        mse_mean: floats(&|row| row.mse.map(|mse| mse.0)),
        mse_m2: floats(&|row| row.mse.map(|mse| mse.1)),
        x0_mse_mean: floats(&|row| row.x0_mse_mean),
        vb_mean: floats(&|row| Some(row.vb.0)),
        vb_m2: floats(&|row| Some(row.vb.1)),
        mse_floor: floats(&|row| row.mse_floor),
        vb_floor: floats(&|row| row.vb_floor),
        grad_norm_mean: floats(&|row| row.grad_norm_mean),
    })
}

/// [`read_losses`] of a file whose blake3 a record may vouch for: where it has just that one, its bytes are as they were written, and
/// its values need no check of their own.
///
/// # Errors
/// As [`read_rows`].
pub fn read_committed_losses(dir: &Path, blake3: Option<&str>) -> Result<LossTable> {
    let path = dir.join(LOSSES);
    let Some(wanted) = blake3 else { return read_losses(dir) };
    let bytes = fs::read(&path)?;
    if fs::hash(&bytes) != wanted {
        // Another process may have gone on since; what the file says of itself decides.
        return read_losses(dir);
    }
    match std::panic::catch_unwind(move || table_of(&frame_of(bytes)?.0)) {
        Ok(Ok(table)) => Ok(table),
        Ok(Err(what)) => Err(StoreError::corrupt(&path, what)),
        Err(_) => Err(StoreError::corrupt(&path, "its structure makes no sense")),
    }
}

/// The columns as they are, an absent value as NaN.
fn table_of(frame: &DataFrame) -> std::result::Result<LossTable, String> {
    let text = |e: PolarsError| e.to_string();
    let floats = |name: &str| -> std::result::Result<Vec<f64>, String> {
        let column = frame.column(name).and_then(|c| c.f64()).map_err(text)?;
        let mut out = Vec::with_capacity(column.len());
        for chunk in column.downcast_iter() {
            let from = out.len();
            out.extend_from_slice(chunk.values());
            if let Some(valid) = chunk.validity() {
                out[from..].iter_mut().zip(valid.iter()).filter(|(_, there)| !there).for_each(|(x, _)| *x = f64::NAN);
            }
        }
        Ok(out)
    };
    let whole = |name: &str| match frame.column(name).map_err(text)?.null_count() {
        0 => Ok(()),
        n => Err(format!("{n} rows lack the `{name}` they must have")),
    };
    for column in columns()[RUN_COLUMNS..].iter().filter(|column| !column.nullable) {
        whole(column.name)?;
    }
    let counts = |name: &str| -> std::result::Result<Vec<u32>, String> {
        Ok(frame.column(name).and_then(|c| c.u32()).map_err(text)?.into_no_null_iter().collect())
    };
    let t = frame.column("t").and_then(|c| c.i32()).map_err(text)?.into_no_null_iter();
    Ok(LossTable {
        split: named(frame, "split")?,
        weights: named(frame, "weights")?,
        step: frame.column("step").and_then(|c| c.i64()).map_err(text)?.into_no_null_iter().collect(),
        t: t.map(|t| u32::try_from(t).map_err(|_| format!("t is {t}"))).collect::<std::result::Result<_, _>>()?,
        t_weight: floats("t_weight")?,
        n: counts("n")?,
        n_nonfinite: counts("n_nonfinite")?,
        mse_mean: floats("mse_mean")?,
        mse_m2: floats("mse_m2")?,
        x0_mse_mean: floats("x0_mse_mean")?,
        vb_mean: floats("vb_mean")?,
        vb_m2: floats("vb_m2")?,
        mse_floor: floats("mse_floor")?,
        vb_floor: floats("vb_floor")?,
        grad_norm_mean: floats("grad_norm_mean")?,
    })
}

fn decode(bytes: Vec<u8>) -> std::result::Result<Vec<LossRow>, String> {
    let (frame, hash) = frame_of(bytes)?;
    let rows = rows_of(&frame)?;
    if content_hash(rows.iter()) != hash {
        return Err("its values do not match its checksum".to_string());
    }
    Ok(rows)
}

/// The columns that do not name the run, and the blake3 of their values.
fn frame_of(bytes: Vec<u8>) -> std::result::Result<(DataFrame, String), String> {
    let text = |e: PolarsError| e.to_string();
    if !seal_holds(&bytes) {
        return Err("its bytes do not match its checksum".to_string());
    }
    let mut reader = ParquetReader::new(Cursor::new(bytes)).read_parallel(ParallelStrategy::None).set_rechunk(true);
    let footer = reader.get_metadata().map_err(text)?.key_value_metadata.clone().unwrap_or_default();
    let value = |key: &str| footer.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone());
    let schema = value(KEY_SCHEMA).ok_or("it was not written by ddpm-lab")?;
    if schema != SCHEMA.to_string() {
        return Err(format!("it has layout {schema}, and this program reads layout {SCHEMA}"));
    }
    let hash = value(KEY_HASH).ok_or("its checksum is missing")?;
    let wanted: Vec<String> = columns()[RUN_COLUMNS..].iter().map(|column| column.name.to_string()).collect();
    Ok((reader.with_columns(Some(wanted)).finish().map_err(text)?, hash))
}

fn rows_of(frame: &DataFrame) -> std::result::Result<Vec<LossRow>, String> {
    let text = |e: PolarsError| e.to_string();
    let floats = |name: &str| -> std::result::Result<Vec<Option<f64>>, String> {
        Ok(frame.column(name).and_then(|c| c.f64()).map_err(text)?.iter().collect())
    };
    let counts = |name: &str| -> std::result::Result<Vec<Option<u32>>, String> {
        Ok(frame.column(name).and_then(|c| c.u32()).map_err(text)?.iter().collect())
    };
    let split = named::<Split>(frame, "split")?;
    let weights = named::<Weights>(frame, "weights")?;
    let term = named::<Term>(frame, "term")?;
    let step: Vec<Option<i64>> = frame.column("step").and_then(|c| c.i64()).map_err(text)?.iter().collect();
    let t: Vec<Option<i32>> = frame.column("t").and_then(|c| c.i32()).map_err(text)?.iter().collect();
    let (n, n_nonfinite, t_weight) = (counts("n")?, counts("n_nonfinite")?, floats("t_weight")?);
    let (mse_mean, mse_m2, x0_mse_mean) = (floats("mse_mean")?, floats("mse_m2")?, floats("x0_mse_mean")?);
    let (vb_mean, vb_m2) = (floats("vb_mean")?, floats("vb_m2")?);
    let (mse_floor, vb_floor, grad_norm_mean) = (floats("mse_floor")?, floats("vb_floor")?, floats("grad_norm_mean")?);
    let row = |i: usize| {
        let row = LossRow {
            split: split[i],
            weights: weights[i],
            step: step[i]?,
            t: u32::try_from(t[i]?).ok()?,
            t_weight: t_weight[i]?,
            n: n[i]?,
            n_nonfinite: n_nonfinite[i]?,
            mse: mse_mean[i].zip(mse_m2[i]),
            x0_mse_mean: x0_mse_mean[i],
            vb: (vb_mean[i]?, vb_m2[i]?),
            mse_floor: mse_floor[i],
            vb_floor: vb_floor[i],
            grad_norm_mean: grad_norm_mean[i],
        };
        (row.term() == term[i]).then_some(row)
    };
    (0..frame.height()).map(|i| row(i).ok_or_else(|| format!("row {i} lacks a value it must have"))).collect()
}

fn named<E: NamedEnum>(frame: &DataFrame, name: &str) -> std::result::Result<Vec<E>, String> {
    let column = frame.column(name).and_then(|c| c.str()).map_err(|e| e.to_string())?;
    let parse = |value: Option<&str>| value.and_then(E::from_name).ok_or_else(|| format!("`{name}` holds {value:?}"));
    column.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> RunColumns {
        RunColumns {
            run_id: "r0123456789ab".into(),
            slug: "linear-simple-s0".into(),
            schedule: "linear".into(),
            loss: "simple".into(),
            prediction: "epsilon".into(),
            variance: "fixed_small".into(),
            model: "unet2d".into(),
            data: "digits".into(),
            timesteps: 1000,
            batch_size: 64,
            lr: 2e-4,
            seed: 0,
        }
    }

    /// `count` rows that visit the splits, the prior, absent values and ones that are not finite.
    fn rows(count: usize) -> Vec<LossRow> {
        let noise = |i: usize, salt: f64| ((i as f64 * 12.9898 + salt).sin() * 43758.5453).fract();
        let row = |i: usize| {
            let split = Split::ALL[i / 1001 % 3];
            let t = (i % 1001) as u32;
            LossRow {
                split,
                weights: if split == Split::Train { Weights::Raw } else { Weights::Ema },
                step: (i / 1001) as i64 * 100,
                t,
                t_weight: 1.0 + (i % 2) as f64,
                n: 1 + (i % 7) as u32,
                n_nonfinite: (i.is_multiple_of(5)) as u32,
                mse: (t > 0).then(|| (noise(i, 0.0), noise(i, 1.0))),
                x0_mse_mean: (t > 0).then(|| noise(i, 2.0)),
                vb: (noise(i, 3.0), if i.is_multiple_of(11) { f64::INFINITY } else { noise(i, 4.0) }),
                mse_floor: (i.is_multiple_of(3)).then(|| noise(i, 5.0)),
                vb_floor: None,
                grad_norm_mean: (split == Split::Train).then(|| noise(i, 6.0)),
            }
        };
        (0..count).map(row).collect()
    }

    #[test]
    fn thirty_thousand_rows_come_back_equal() {
        let dir = tempfile::tempdir().unwrap();
        let rows = rows(30_000);
        let before = std::time::Instant::now();
        let hash = write_losses(dir.path(), &run(), &rows).unwrap();
        let written = before.elapsed();
        let back = read_rows(dir.path()).unwrap();
        let read = before.elapsed() - written;
        println!("30,000 rows: {written:?} to write, {read:?} to read, {} bytes", fs::length(&dir.path().join(LOSSES)).unwrap());
        assert!(back == rows);
        assert_eq!(fs::hash_file(&dir.path().join(LOSSES)).unwrap(), hash);
    }

    #[test]
    fn the_table_has_the_rows_in_columns_with_nan_for_absent_values() {
        let dir = tempfile::tempdir().unwrap();
        let rows = rows(2);
        write_losses(dir.path(), &run(), &rows).unwrap();
        let table = read_losses(dir.path()).unwrap();
        assert_eq!(table.t, [0, 1]);
        assert!(table.mse_mean[0].is_nan() && table.vb_floor[1].is_nan());
        assert_eq!((table.mse_mean[1], table.mse_m2[1]), rows[1].mse.unwrap());
        assert_eq!((table.vb_mean[1], table.vb_m2[1]), rows[1].vb);
        assert_eq!((table.split[1], table.weights[1], table.n[1]), (Split::Train, Weights::Raw, 2));
    }

    #[test]
    fn a_file_that_is_vouched_for_gives_the_same_table_and_one_that_is_not_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let hash = write_losses(dir.path(), &run(), &rows(5000)).unwrap();
        // Bits, as NaN equals nothing.
        let shown = |table: LossTable| format!("{table:?}");
        let plain = shown(read_losses(dir.path()).unwrap());
        assert!(plain == shown(read_committed_losses(dir.path(), Some(&hash)).unwrap()));
        assert!(plain == shown(read_committed_losses(dir.path(), Some("of an earlier state")).unwrap()));
        assert!(plain == shown(read_committed_losses(dir.path(), None).unwrap()));
        let path = dir.path().join(LOSSES);
        let whole = fs::read(&path).unwrap();
        for bit in (0..whole.len() * 8).step_by(whole.len() / 5) {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &flipped).unwrap();
            match read_committed_losses(dir.path(), Some(&hash)) {
                Ok(table) => assert!(shown(table) == plain, "bit {bit} changed a number unnoticed"),
                Err(error) => assert!(error.is_corrupt(), "{error}"),
            }
        }
    }

    #[test]
    fn names_order_and_types_of_the_columns_are_those_of_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        write_losses(dir.path(), &run(), &rows(10)).unwrap();
        let bytes = fs::read(&dir.path().join(LOSSES)).unwrap();
        let frame = ParquetReader::new(Cursor::new(bytes)).finish().unwrap();
        let found: Vec<String> = frame.columns().iter().map(|c| format!("{} {}", c.name(), c.dtype())).collect();
        let contract = "run_id str,slug str,schedule str,loss str,prediction str,variance str,model str,data str,\
            timesteps i32,batch_size i32,lr f64,seed i64,split str,weights str,step i64,t i32,term str,t_weight f64,\
            n u32,n_nonfinite u32,mse_mean f64,mse_m2 f64,x0_mse_mean f64,vb_mean f64,vb_m2 f64,mse_floor f64,\
            vb_floor f64,grad_norm_mean f64";
        assert_eq!(found.join(","), contract);
        let declared: Vec<String> = columns().iter().map(|c| format!("{} {}", c.name, c.dtype)).collect();
        assert_eq!(declared.join(","), contract);
        for (column, spec) in frame.columns().iter().zip(columns()) {
            assert!(spec.nullable || column.null_count() == 0, "{}", spec.name);
        }
    }

    #[test]
    fn a_table_without_rows_has_the_same_columns() {
        let dir = tempfile::tempdir().unwrap();
        write_losses(dir.path(), &run(), &[]).unwrap();
        assert_eq!(read_rows(dir.path()).unwrap(), []);
        let frame = ParquetReader::new(Cursor::new(fs::read(&dir.path().join(LOSSES)).unwrap())).finish().unwrap();
        let types: Vec<DataType> = frame.columns().iter().map(|c| c.dtype().clone()).collect();
        assert_eq!(types, columns().into_iter().map(|c| c.dtype).collect::<Vec<_>>());
    }

    #[test]
    fn equal_rows_give_equal_bytes_and_other_rows_other_bytes() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut rows = rows(5_000);
        let first = write_losses(a.path(), &run(), &rows).unwrap();
        // The second time in another folder, after other rows, from another allocation.
        write_losses(b.path(), &run(), &rows[..100]).unwrap();
        assert_eq!(write_losses(b.path(), &run(), &rows.clone()).unwrap(), first);
        rows[17].n += 1;
        assert_ne!(write_losses(b.path(), &run(), &rows).unwrap(), first);
    }

    #[test]
    fn a_row_without_samples_is_left_out_and_one_with_only_bad_samples_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut rows = rows(3);
        (rows[1].n, rows[1].n_nonfinite) = (0, 0);
        (rows[2].n, rows[2].n_nonfinite) = (0, 4);
        write_losses(dir.path(), &run(), &rows).unwrap();
        assert_eq!(read_rows(dir.path()).unwrap().iter().map(|row| row.t).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn a_torn_file_is_an_error_that_names_the_path() {
        let dir = tempfile::tempdir().unwrap();
        write_losses(dir.path(), &run(), &rows(50)).unwrap();
        let path = dir.path().join(LOSSES);
        let whole = fs::read(&path).unwrap();
        for length in (0..whole.len()).step_by(37) {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = read_rows(dir.path()).expect_err(&format!("{length} of {} bytes", whole.len()));
            assert!(error.is_corrupt() && error.to_string().contains(LOSSES), "{error}");
        }
    }

    #[test]
    fn a_flipped_bit_is_an_error_or_changes_no_number() {
        let dir = tempfile::tempdir().unwrap();
        let rows = rows(200);
        write_losses(dir.path(), &run(), &rows).unwrap();
        let path = dir.path().join(LOSSES);
        let whole = fs::read(&path).unwrap();
        let mut position = 12345_usize;
        let mut noticed = 0;
        for _ in 0..400 {
            position = position.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let bit = (position >> 16) % (whole.len() * 8);
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &flipped).unwrap();
            match read_rows(dir.path()) {
                Ok(back) => assert!(back == rows, "bit {bit} changed a number unnoticed"),
                Err(error) => {
                    assert!(error.is_corrupt(), "{error}");
                    noticed += 1;
                }
            }
        }
        assert!(noticed >= 395, "only {noticed} of 400 flips were noticed: one in the mark of the seal does no harm");
    }

    /// Tables of before there were seals have only the hash of their values.
    #[test]
    fn a_flipped_bit_among_values_that_no_seal_covers_changes_no_number() {
        let dir = tempfile::tempdir().unwrap();
        let rows = rows(200);
        write_losses(dir.path(), &run(), &rows).unwrap();
        let path = dir.path().join(LOSSES);
        let mut whole = fs::read(&path).unwrap();
        let seal = whole.windows(SEAL.len()).rposition(|window| window == SEAL).unwrap();
        whole.drain(seal..seal + SEAL.len() + 32);
        std::fs::write(&path, &whole).unwrap();
        assert!(read_rows(dir.path()).unwrap() == rows, "it reads without a seal");
        for bit in (4 * 8..seal * 8).step_by(53) {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &flipped).unwrap();
            match read_rows(dir.path()) {
                Ok(back) => assert!(back == rows, "bit {bit} changed a number unnoticed"),
                Err(error) => assert!(error.is_corrupt(), "{error}"),
            }
        }
    }

    #[test]
    fn a_table_of_another_layout_is_refused_with_both_versions() {
        let dir = tempfile::tempdir().unwrap();
        let rows = rows(3);
        let mut frame = frame(&run(), &rows.iter().collect::<Vec<_>>()).unwrap();
        let footer = [(KEY_SCHEMA, "7".to_string()), (KEY_HASH, content_hash(rows.iter()))];
        let footer = footer.map(|(key, value)| (key.to_string(), value)).to_vec();
        let mut bytes = Vec::new();
        ParquetWriter::new(&mut bytes).with_key_value_metadata(Some(KeyValueMetadata::from_static(footer))).finish(&mut frame).unwrap();
        std::fs::write(dir.path().join(LOSSES), bytes).unwrap();
        let message = read_losses(dir.path()).unwrap_err().to_string();
        assert!(message.contains("layout 7") && message.contains("layout 1"), "{message}");
    }

    #[test]
    fn fresh_rows_come_back_as_they_were_and_any_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("step-4.rows");
        let rows = rows(3003);
        write_fresh_rows(&path, &rows).unwrap();
        assert!(read_fresh_rows(&path).unwrap() == rows);
        let whole = std::fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(997) {
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(read_fresh_rows(&path).unwrap_err().is_corrupt(), "cut at {at}");
            let mut flipped = whole.clone();
            flipped[at] ^= 4;
            std::fs::write(&path, &flipped).unwrap();
            assert!(read_fresh_rows(&path).unwrap_err().is_corrupt(), "flipped at {at}");
        }
    }

    #[test]
    fn somebody_elses_parquet_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut frame = frame(&run(), &rows(3).iter().collect::<Vec<_>>()).unwrap();
        let mut bytes = Vec::new();
        ParquetWriter::new(&mut bytes).finish(&mut frame).unwrap();
        std::fs::write(dir.path().join(LOSSES), bytes).unwrap();
        assert!(read_losses(dir.path()).unwrap_err().to_string().contains("not written by ddpm-lab"));
    }
}
