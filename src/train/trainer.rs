//! The loop.

use super::batch::BatchSource;
use super::engine::Engine;
use super::floor::Floors;
use super::pace::Pace;
use super::window::Window;
use super::{TrainError, checkpoint, needs_cuda};
use crate::config::{MatmulPrecision, RunConfig};
use crate::data::{self, Dataset};
use crate::diffusion::{Diffusion, Kernel, TimestepSource};
use crate::model::Model;
use crate::ops::cuda;
use crate::optim::{AdamW, Weights};
use crate::record::{Evaluation, Event, LossRow, SampleQuality, Split};
use crate::store::{
    LOSSES, Manifest, Provenance, RunColumns, RunDir, SCHEMA, Status, StoreError, Volatile, fs, read_fresh_rows, read_rows,
    write_fresh_rows, write_losses,
};
use candle_core::Device;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Asked to stop; a checkpoint is on disk.
    Interrupted {
        step: u32,
    },
    /// The gradient of update `step` was not finite.
    Diverged {
        step: u32,
    },
}

/// What a run needs to know beyond its configuration: nothing here changes a number on the CPU.
pub struct RunOptions<'a> {
    pub device: &'a Device,
    pub threads: usize,
    /// Steps between checkpoints; 0 lets [`Pace`] choose.
    pub checkpoint_every: u32,
    /// Keep every checkpoint, not only the last two.
    pub keep: bool,
    /// Go on from a checkpoint that other code made.
    pub allow_code_change: bool,
    /// Set by someone else to end the run at the next step.
    pub stop: &'a AtomicBool,
    pub provenance: Provenance,
    pub host: String,
    /// Seconds since 1970, now.
    pub now: fn() -> f64,
}

/// Why a checkpoint is not gone on from.
enum Unusable {
    /// It, or what belongs to it, is not whole: an older one will do.
    Damaged(String),
    /// The disk fails: what is there may be whole, and nothing is thrown away.
    Error(StoreError),
}

impl From<StoreError> for Unusable {
    fn from(error: StoreError) -> Self {
        if error.is_corrupt() || error.is_missing() { Self::Damaged(error.to_string()) } else { Self::Error(error) }
    }
}

fn fresh_timesteps(config: &RunConfig, diffusion: &Diffusion) -> TimestepSource {
    TimestepSource::new(config.train.timestep_sampler, diffusion.timesteps(), config.train.batch_size)
}

/// A run being trained.
pub struct Trainer<'a> {
    pub(super) config: &'a RunConfig,
    pub(super) dir: &'a RunDir,
    pub(super) options: RunOptions<'a>,
    pub(super) run_id: String,
    pub(super) slug: String,
    pub(super) dataset: Dataset,
    pub(super) diffusion: Diffusion,
    /// Where t is drawn from, with what it remembers of the losses.
    pub(super) timesteps: TimestepSource,
    pub(super) model: Model,
    pub(super) pool: Arc<rayon::ThreadPool>,
    pub(super) emit: Box<dyn Fn(Event) + Send + Sync + 'a>,
    pub(super) started: Instant,
    pub(super) last_progress: Option<(Instant, u32)>,
    pub(super) previous: Option<Manifest>,
    /// All rows so far, in the order of the file.
    pub(super) rows: Vec<LossRow>,
    /// How many of them are in `losses.parquet`, and how many in that or beside a checkpoint.
    tabled: usize,
    saved: usize,
    /// The step of the former.
    tabled_at: u32,
    pace: Pace,
    checkpoint_every: u32,
    pub(super) evaluations: Vec<Evaluation>,
    pub(super) floors: Floors,
    /// Of the final samples.
    pub(super) quality: Option<SampleQuality>,
}

/// Seconds between two progress events.
pub(super) const PROGRESS_EVERY: f64 = 0.25;

/// What names a run in every row of its table.
pub fn columns_of(config: &RunConfig, data: &str) -> RunColumns {
    RunColumns {
        run_id: config.id().to_string(),
        slug: config.slug(),
        schedule: config.diffusion.schedule.to_string(),
        loss: config.loss.variant.to_string(),
        prediction: config.diffusion.prediction.to_string(),
        variance: match config.diffusion.kernel {
            Kernel::Gaussian => config.diffusion.variance.to_string(),
            // Bits have no variance of their own: the kernel's name says what the reverse step is.
            Kernel::Binomial => config.diffusion.kernel.to_string(),
        },
        model: config.model.kind.to_string(),
        data: data.to_owned(),
        timesteps: config.diffusion.timesteps,
        batch_size: config.train.batch_size,
        lr: config.train.lr,
        seed: config.seed,
    }
}

/// Has a device compute in the precision that the configuration asks for.
pub(super) fn allow_precision(config: &RunConfig) {
    cuda::allow_tf32(config.train.matmul_precision == MatmulPrecision::Tf32);
}

impl<'a> Trainer<'a> {
    /// Loads the data and builds the network. The caller holds the lock of `dir`.
    ///
    /// # Errors
    /// If data, network or threads cannot be had, or the data are not those the configuration names.
    pub fn new(
        config: &'a RunConfig,
        dir: &'a RunDir,
        options: RunOptions<'a>,
        emit: impl Fn(Event) + Send + Sync + 'a,
    ) -> Result<Self, TrainError> {
        if cuda::is_device(options.device) {
            allow_precision(config);
        } else if let Some(setting) = needs_cuda(&config.train) {
            return Err(TrainError::Precision { setting });
        }
        let dataset = data::load(&config.data)?;
        let diffusion = Diffusion::new(&config.diffusion, dataset.info.shape, dataset.info.encoding)?;
        let model = Model::new(&config.model, dataset.info.shape, diffusion.output_channels())?;
        // A device takes one thing after the other: a second thread prepares what comes next, more would only hold memory.
        let threads = if cuda::is_device(options.device) { options.threads.min(2) } else { options.threads };
        let pool = cuda::threads_like_this()
            .num_threads(threads)
            .build()
            .map_err(|e| TrainError::Threads { threads: options.threads, reason: e.to_string() })?;
        let flops = 3.0 * f64::from(config.train.batch_size) * model.forward_flops() as f64;
        let pace = Pace::new(flops, cuda::is_device(options.device));
        Ok(Self {
            floors: Floors::new(config, &diffusion),
            pace,
            checkpoint_every: pace.checkpoint_every(options.checkpoint_every),
            run_id: config.id().to_string(),
            slug: config.slug(),
            config,
            dir,
            options,
            dataset,
            timesteps: fresh_timesteps(config, &diffusion),
            diffusion,
            model,
            pool: Arc::new(pool),
            emit: Box::new(emit),
            started: Instant::now(),
            last_progress: None,
            previous: dir.manifest()?,
            rows: Vec::new(),
            tabled: 0,
            tabled_at: 0,
            saved: 0,
            evaluations: Vec::new(),
            quality: None,
        })
    }

    /// Trains to the end, or until asked to stop; goes on from the last checkpoint where there is one.
    ///
    /// # Errors
    /// If the network, the device or the disk fails. What was checkpointed stays.
    pub fn run(self) -> Result<Outcome, TrainError> {
        // Inside the pool from the start: handing each step's work over to it would cost a small network as much as a layer.
        let pool = self.pool.clone();
        pool.install(|| self.train())
    }

    fn train(mut self) -> Result<Outcome, TrainError> {
        let steps = self.config.train.steps;
        let (weights, mut window) = self.resume()?;
        let resumed = weights.step;
        self.measure_floor();
        let mut engine = Engine::new(&self, weights)?;
        let mut epoch = None;
        self.emit(Event::Started {
            step: resumed,
            steps,
            parameters: self.model.layout().total() as u64,
            device: self.options.provenance.device.clone(),
        });

        loop {
            let step = engine.steps_made();
            let last = step == steps;
            let stop = self.options.stop.load(Ordering::Relaxed);

            // 1. What the steps so far came to.
            let news = engine.seen(stop || self.is_due(step, last), &mut window)?;
            self.timesteps.record(window.take_losses());
            for seen in &news {
                if !seen.norm.is_finite() {
                    return self.diverge(&mut window, seen.step);
                }
                window.push_step(seen.loss, seen.norm);
            }
            if let Some(seen) = news.last() {
                self.report_progress(seen.step + 1, seen.loss);
            }

            // 2. What is due between two steps: the end of a window, an evaluation, samples, a checkpoint.
            if !window.is_empty() && (last || step % self.config.log.every == 0) {
                self.close_window(&mut window, step)?;
            }
            if self.evaluation_is_due(step, last) && !self.evaluate_validation(engine.weights()?)? {
                return self.interrupt(engine.weights()?, &window);
            }
            if self.samples_are_due(step, last) && !self.draw_samples(engine.weights()?)? {
                return self.interrupt(engine.weights()?, &window);
            }
            if last {
                break;
            }
            if stop {
                return self.interrupt(engine.weights()?, &window);
            }
            if step > resumed && step.is_multiple_of(self.checkpoint_every) {
                self.checkpoint(engine.weights()?, &window, false)?;
            }

            // 3. Draw the batch, run it forward and backward, clip, update, average the weights.
            let indices = self.batch_source().indices(step, &mut epoch);
            engine.step(&self, &indices, &mut window)?;
        }

        // 4. The weights are final: keep them before anything that takes long.
        let weights = engine.weights()?;
        self.checkpoint(weights, &window, true)?;
        if !(self.draw_samples(weights)? && self.evaluate_test(weights)?) {
            self.write_manifest(Status::Interrupted, None, weights.step, None)?;
            return Ok(Outcome::Interrupted { step: weights.step });
        }
        self.write_results()?;
        self.write_manifest(Status::Done, None, weights.step, None)?;
        Ok(Outcome::Done)
    }

    /// Whether anything at `step` needs to know what the steps before it came to.
    fn is_due(&self, step: u32, last: bool) -> bool {
        last || self.timesteps.learns()
            || step.is_multiple_of(self.config.log.every)
            || step.is_multiple_of(self.checkpoint_every)
            || self.samples_are_due(step, last)
            || self.evaluation_is_due(step, last)
    }

    fn samples_are_due(&self, step: u32, last: bool) -> bool {
        let every = self.config.sample.every;
        every > 0 && step > 0 && step.is_multiple_of(every) && !last
    }

    /// The optimizer that the configuration asks for.
    pub(super) fn adamw(&self) -> AdamW {
        let train = &self.config.train;
        AdamW {
            lr: train.lr,
            warmup: train.warmup,
            beta1: train.beta1,
            beta2: train.beta2,
            epsilon: 1e-8,
            weight_decay: train.weight_decay,
            grad_clip: train.grad_clip,
            ema: train.ema,
        }
    }

    pub(super) fn batch_source(&self) -> BatchSource<'_> {
        BatchSource {
            dataset: &self.dataset,
            diffusion: &self.diffusion,
            timesteps: &self.timesteps,
            seed: self.config.seed as u64,
            batch_size: self.config.train.batch_size as usize,
            flip: self.config.data.flip,
        }
    }

    /// Writes the open window's rows and its line of `timing.jsonl`.
    fn close_window(&mut self, window: &mut Window, step: u32) -> Result<(), TrainError> {
        let loss = window.mean_loss();
        self.rows.extend(self.floors.beside(window.close(i64::from(step))));
        let seconds = self.started.elapsed().as_secs_f64();
        self.dir.append_timing(&serde_json::json!({"step": step, "loss": loss, "seconds": seconds}).to_string())?;
        Ok(())
    }

    /// The state to start from: the newest checkpoint that is whole, else fresh weights.
    fn resume(&mut self) -> Result<(Weights, Window), TrainError> {
        let timesteps = self.diffusion.timesteps();
        let mut damaged = false;
        for (step, path) in self.dir.checkpoints()?.into_iter().rev() {
            match self.restore(step, &path) {
                Ok((weights, window, code)) => {
                    if code != checkpoint::NUMERICS && !self.options.allow_code_change {
                        self.notice(format!(
                            "other code than this program's made its checkpoint of step {step}: it starts again from step 0 (--allow-code-change goes on)"
                        ));
                        break;
                    }
                    self.say_if_elsewhere();
                    self.forget_checkpoints_after(step)?;
                    return Ok((weights, window));
                }
                Err(Unusable::Error(error)) => return Err(error.into()),
                Err(Unusable::Damaged(reason)) => {
                    let file = path.file_name().unwrap_or_default().display();
                    self.notice(format!("its checkpoint {file} cannot be used: {reason}"));
                    damaged = true;
                }
            }
        }
        if damaged {
            self.notice("it starts again from step 0".to_owned());
        }
        self.rows.clear();
        self.evaluations.clear();
        self.timesteps = fresh_timesteps(self.config, &self.diffusion);
        self.forget_checkpoints_after(0)?;
        // A picture that is there is not drawn again, and these may be another code's.
        self.dir.remove_samples()?;
        Ok((Weights::new(self.model.layout().init(self.config.seed as u64)), Window::new(timesteps)))
    }

    /// A machine of another kind may round otherwise.
    fn say_if_elsewhere(&self) {
        let place = |p: &Provenance| format!("ddpm-lab {} on {} ({})", p.version, p.device, p.instruction_set);
        if let Some(before) = self.previous.as_ref().map(|m| place(&m.provenance)) {
            let now = place(&self.options.provenance);
            if before != now {
                self.notice(format!("it was begun by {before} and goes on with {now}: its last bits may differ from those of one machine"));
            }
        }
    }

    /// For the log and for whoever watches.
    fn notice(&self, text: String) {
        tracing::warn!("{text}");
        self.emit(Event::Notice { text });
    }

    /// The state of one checkpoint, the code that wrote it, and the rows and evaluations up to it.
    fn restore(&mut self, step: u32, path: &Path) -> Result<(Weights, Window, String), Unusable> {
        let bytes = fs::read(path)?;
        let (weights, window, losses) =
            checkpoint::decode(self.model.layout(), &self.run_id, self.diffusion.timesteps(), &bytes).map_err(Unusable::Damaged)?;
        if weights.step != step {
            return Err(Unusable::Damaged(format!("it holds step {}", weights.step)));
        }
        let kept = |split, at: i64| split != Split::Test && at <= i64::from(step);
        let rows = self.rows_up_to(step)?;
        let origin = checkpoint::origin(&bytes).ok_or_else(|| Unusable::Damaged("its metadata cannot be read".to_owned()))?;
        let evaluations = self.dir.read_evaluations()?.into_iter().filter(|e| kept(e.split, e.step)).collect();
        let evaluations = origin
            .of_before(evaluations)
            .ok_or_else(|| Unusable::Damaged("metrics.jsonl does not hold the evaluations made before it".to_owned()))?;
        if !self.timesteps.restore(losses.as_deref()) {
            return Err(Unusable::Damaged("its losses by timestep are not those of this run's sampler".to_owned()));
        }
        self.evaluations = evaluations;
        // The rows of an evaluation count once its line is there; else it is made again.
        let evaluated = |r: &LossRow| r.split == Split::Train || self.evaluations.iter().any(|e| (e.split, e.step) == (r.split, r.step));
        let rows: Vec<LossRow> = rows.into_iter().filter(|r| kept(r.split, r.step) && evaluated(r)).collect();
        if origin.rows.is_some_and(|told| told != rows.len()) {
            return Err(Unusable::Damaged("the rows of losses written before it are not all there".to_owned()));
        }
        self.rows = rows;
        Ok((weights, window, origin.code))
    }

    /// The rows of the table, then those that the checkpoints up to `step` wrote beside it. A window or an evaluation is
    /// written as a whole, so one that the table has is not taken twice.
    fn rows_up_to(&self, step: u32) -> Result<Vec<LossRow>, StoreError> {
        let mut rows = read_rows(self.dir.path())?;
        let group = |r: &LossRow| (r.step, r.split, r.weights);
        for (_, path) in self.dir.row_files()?.into_iter().filter(|(at, _)| *at <= step) {
            let there: HashSet<_> = rows.iter().map(group).collect();
            rows.extend(read_fresh_rows(&path)?.into_iter().filter(|r| !there.contains(&group(r))));
        }
        Ok(rows)
    }

    /// Removes the checkpoints of a future that will be trained anew: were they kept, a later resume would take one of
    /// them for this run's own.
    fn forget_checkpoints_after(&self, step: u32) -> Result<(), TrainError> {
        let files = self.dir.checkpoints()?.into_iter().chain(self.dir.row_files()?);
        Ok(files.filter(|(other, _)| *other > step).try_for_each(|(_, path)| fs::remove(&path))?)
    }

    /// Rows and evaluations first, then the checkpoint that makes them count.
    ///
    /// The table is written anew where that is cheap beside the steps since the last time, when it has grown manifold, and
    /// where the run ends or pauses (`whole`); other checkpoints write their own rows beside it. Else a long run of a small
    /// network would spend its time on writing the same rows.
    fn checkpoint(&mut self, weights: &Weights, window: &Window, whole: bool) -> Result<(), TrainError> {
        let whole = whole || self.pace.table_is_due(self.rows.len(), self.tabled, weights.step - self.tabled_at);
        if whole {
            self.write_results()?;
            self.tabled_at = weights.step;
        } else {
            if self.saved < self.rows.len() {
                write_fresh_rows(&self.dir.rows_path(weights.step), &self.rows[self.saved..])?;
            }
            self.dir.write_evaluations(&self.evaluations)?;
        }
        self.saved = self.rows.len();
        let bytes = checkpoint::encode(
            self.model.layout(),
            &self.run_id,
            weights,
            window,
            self.timesteps.save().as_deref(),
            &self.evaluations,
            self.rows.iter().filter(|row| row.counts()).count(),
        )
        .map_err(|e| TrainError::Checkpoint { path: self.dir.checkpoint_path(weights.step), reason: e.to_string() })?;
        fs::write_atomic(&self.dir.checkpoint_path(weights.step), &bytes)?;
        if !self.options.keep {
            self.dir.prune_checkpoints(2)?;
        }
        if whole {
            self.dir.row_files()?.iter().try_for_each(|(_, path)| fs::remove(path))?;
        }
        self.emit(Event::Checkpointed { step: weights.step });
        Ok(())
    }

    fn interrupt(&mut self, weights: &Weights, window: &Window) -> Result<Outcome, TrainError> {
        self.checkpoint(weights, window, true)?;
        self.write_manifest(Status::Interrupted, None, weights.step, None)?;
        Ok(Outcome::Interrupted { step: weights.step })
    }

    /// Keeps what was finite, says where it ended: update `step + 1` could not be made.
    fn diverge(&mut self, window: &mut Window, step: u32) -> Result<Outcome, TrainError> {
        let bad = step + 1;
        self.rows.extend(self.floors.beside(window.close(i64::from(bad))));
        self.write_results()?;
        self.write_manifest(Status::Diverged, Some(format!("the gradient of step {bad} was not finite")), step, Some(bad))?;
        Ok(Outcome::Diverged { step: bad })
    }

    fn write_results(&mut self) -> Result<(), TrainError> {
        self.tabled = self.rows.len();
        write_losses(self.dir.path(), &columns_of(self.config, &self.dataset.name), &self.rows)?;
        Ok(self.dir.write_evaluations(&self.evaluations)?)
    }

    fn write_manifest(
        &mut self,
        status: Status,
        reason: Option<String>,
        step: u32,
        first_nonfinite_step: Option<u32>,
    ) -> Result<(), TrainError> {
        let mut last: Vec<Evaluation> = Vec::new();
        for e in &self.evaluations {
            last.retain(|l| (l.split, l.weights) != (e.split, e.weights));
            last.push(e.summary());
        }
        let now = (self.options.now)();
        let seconds = self.started.elapsed().as_secs_f64();
        let before = self.previous.as_ref().map(|m| m.volatile.clone()).unwrap_or_default();
        let committed = self.committed_files(step);
        let files = self.dir.hash_files(&committed.iter().map(String::as_str).collect::<Vec<_>>())?;
        let manifest = Manifest {
            schema: SCHEMA,
            run_id: self.run_id.clone(),
            slug: self.slug.clone(),
            status,
            reason,
            step,
            steps: self.config.train.steps,
            first_nonfinite_step,
            parameters: self.model.layout().total() as u64,
            evaluations: last,
            files,
            provenance: Provenance { data: Some(self.dataset.info.fingerprint.clone()), ..self.options.provenance.clone() },
            volatile: Volatile {
                started: if before.attempts > 0 { before.started } else { now - seconds },
                ended: now,
                seconds: before.seconds + seconds,
                attempts: before.attempts + 1,
                host: self.options.host.clone(),
            },
        };
        Ok(self.dir.write_manifest(&manifest)?)
    }

    /// What `run.json` vouches for: the results, the samples and the checkpoint of this step, as far as they exist.
    fn committed_files(&self, step: u32) -> Vec<String> {
        let root = self.dir.path();
        let paths = [
            root.join("config.toml"),
            root.join(LOSSES),
            root.join("metrics.jsonl"),
            self.dir.sample_path(step),
            self.dir.reverse_path(step, "png"),
            self.dir.reverse_path(step, "csv"),
            self.dir.checkpoint_path(step),
        ];
        let inside = |path: &std::path::PathBuf| Some(path.strip_prefix(root).ok()?.to_str()?.to_owned());
        paths.iter().filter(|path| fs::is_file(path)).filter_map(inside).collect()
    }

    fn report_progress(&mut self, step: u32, loss: f64) {
        let (since, at) = self.last_progress.unwrap_or((self.started, step.saturating_sub(1)));
        let elapsed = since.elapsed().as_secs_f64();
        if self.last_progress.is_none() || elapsed >= PROGRESS_EVERY || step == self.config.train.steps {
            let steps_per_second = f64::from(step - at) / elapsed.max(1e-9);
            self.last_progress = Some((Instant::now(), step));
            self.emit(Event::Progress { step, loss, steps_per_second });
        }
    }

    pub(super) fn emit(&self, event: Event) {
        (self.emit)(event);
    }
}
