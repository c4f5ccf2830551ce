//! A fitted pipeline: shaping and kept weights in one part, which pipelines share, and the score behind them.

use std::sync::Arc;

use rayon::prelude::*;

use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Graph, Op, Wire};
use crate::head::LinearHead;
use crate::kernel::{Kernel, Scratch};
use crate::mask::Mask;
use crate::methods::{Scorer, Shaper, Shaping, Views};
use crate::spec::{PipelineSpec, StemSpec};
use crate::state::{State, check_finite};
use crate::statistics::{BankRows, Statistics};
use crate::training::{Kept, Readout, SHAPED_ROWS, Training};
use crate::views::{Takes, Workspace};

/// Rows that are shaped by one thread together.
const TOGETHER: usize = 1024;

/// A place to fit detectors to one head and one set of statistics. Steps are fitted once: detectors with the same shaping and
/// sparsity share its mask and packed weights, and equal pipelines are one.
#[derive(Debug)]
pub struct Fitting<'a> {
    training: Training<'a>,
    /// By the specs that they print as.
    stems: Kept<String, Stem>,
    shapers: Shapers,
    pipelines: Kept<String, Pipeline>,
}

impl<'a> Fitting<'a> {
    /// A place to fit detectors to `head`, from `statistics` of its features.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where the two disagree on D.
    pub fn new(head: &'a Arc<LinearHead>, statistics: &'a Statistics) -> Result<Self> {
        Ok(Self {
            training: Training::new(head, statistics)?,
            stems: Kept::default(),
            shapers: Kept::default(),
            pipelines: Kept::default(),
        })
    }

    pub(crate) fn pipeline(&self, spec: &PipelineSpec) -> Result<Arc<Pipeline>> {
        self.pipelines.get(&spec.to_string(), || {
            let stem = self.stem(&spec.stem, |training| Stem::fit(&spec.stem, training, &self.shapers))?;
            let logits = Arc::clone(&stem);
            let scorer = spec.score.fit(&self.training.behind(logits))?;
            Ok(Pipeline::new(spec.clone(), stem, scorer))
        })
    }

    pub(crate) fn stem(&self, spec: &StemSpec, make: impl FnOnce(&Training<'_>) -> Result<Stem>) -> Result<Arc<Stem>> {
        self.stems.get(&spec.to_string(), || make(&self.training))
    }
}

/// Fitted shapings, by the specs that they print as: stems of one shaping share it.
type Shapers = Kept<String, Arc<dyn Shaper>>;

/// Everything before the score: shaped features through the kept weights of the head.
#[derive(Debug)]
pub(crate) struct Stem {
    pub(crate) head: Arc<LinearHead>,
    shaper: Option<Arc<dyn Shaper>>,
    /// The mean `[D]` of shaped training features, where the mask rests on it.
    shaped_mean: Option<Arc<[f64]>>,
    mask: Option<Arc<Mask>>,
    pub(crate) kernel: Kernel,
}

/// A stem and the score of what it makes.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) spec: PipelineSpec,
    pub(crate) stem: Arc<Stem>,
    pub(crate) takes: Takes,
    pub(crate) scorer: Arc<dyn Scorer>,
}

impl Stem {
    /// Fits shaping and sparsity. The mask rests on the mean of the features as they are also where they are shaped, as in
    /// the authors' code, unless the sparsity takes that of the shaped ones.
    fn fit(spec: &StemSpec, on: &Training<'_>, shapers: &Shapers) -> Result<Self> {
        let fit = |shaping: &Arc<dyn Shaping>| {
            let alone = StemSpec { shaping: Some(Arc::clone(shaping)), sparsity: None };
            shapers.get(&alone.to_string(), || shaping.fit(on)).map(|shaper| Arc::clone(&*shaper))
        };
        let shaper = spec.shaping.as_ref().map(fit).transpose()?;
        let takes_shaped = spec.sparsity.as_ref().is_some_and(|sparsity| sparsity.takes_shaped_mean());
        let shaped_mean = match shaper.as_ref().filter(|_| takes_shaped) {
            Some(shaper) => Some(mean_of_shaped(&**shaper, &on.statistics().bank()?.first(SHAPED_ROWS))),
            None => None,
        };
        let on = on.shaped(shaped_mean.clone());
        let mask = spec.sparsity.as_ref().map(|sparsity| sparsity.mask(&on)).transpose()?;
        Ok(Self { shaped_mean, ..Self::new(Arc::clone(on.head()), shaper, mask)? })
    }

    fn new(head: Arc<LinearHead>, shaper: Option<Arc<dyn Shaper>>, mask: Option<Mask>) -> Result<Self> {
        let clip = shaper.as_ref().and_then(|shaper| shaper.clip());
        let kernel = Kernel::new(&head, mask.as_ref(), clip)?;
        let mask = mask.map(Arc::new);
        Ok(Self { head, shaper, shaped_mean: None, mask, kernel })
    }

    /// Whether both make the same logits, as far as pointers tell: no weights are compared.
    pub(crate) fn is(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        let dense = |stem: &Self| stem.shaper.is_none() && stem.mask.is_none();
        Arc::ptr_eq(self, other) || (dense(self) && dense(other) && Arc::ptr_eq(&self.head, &other.head))
    }

    /// Whether both read the same rows with the same head, as far as pointers and clips tell.
    pub(crate) fn reads_as(&self, other: &Self) -> bool {
        let same = match (&self.shaper, &other.shaper) {
            (None, None) => true,
            (Some(one), Some(other)) => {
                Arc::ptr_eq(one, other) || one.clip().is_some_and(|clip| other.clip() == Some(clip))
            }
            _ => false,
        };
        same && Arc::ptr_eq(&self.head, &other.head)
    }

    /// The rows as the kernel reads them: `features` `[n, D]`, or in `shaped` what becomes of them.
    pub(crate) fn shaped<'a>(
        &self,
        features: &'a [f32],
        shaped: &'a mut Vec<f32>,
        workspace: &mut Workspace,
    ) -> &'a [f32] {
        let Some(shaper) = self.shaper() else { return features };
        shaped.clear();
        shaped.extend_from_slice(features);
        shaped.chunks_exact_mut(self.head.units()).for_each(|row| shaper.shape(row, workspace));
        shaped
    }

    /// The kept weights `[C, D]`; `None` where all are kept by definition.
    pub(crate) fn mask(&self) -> Option<&Mask> {
        self.mask.as_deref()
    }

    /// The activation at which features are clipped, where that is all that shaping does.
    pub(crate) fn clip(&self) -> Option<f32> {
        self.shaper.as_ref()?.clip()
    }

    /// A row `[D]` as the head reads it.
    pub(crate) fn shaped_row(&self, row: &[f32]) -> Vec<f32> {
        let mut row = row.to_vec();
        if let Some(shaper) = &self.shaper {
            shaper.shape(&mut row, &mut Workspace::default());
        }
        row
    }

    /// What shapes rows before the kernel reads them; none where the kernel does it.
    pub(crate) fn shaper(&self) -> Option<&dyn Shaper> {
        self.shaper.as_deref().filter(|shaper| shaper.clip().is_none())
    }

    pub(crate) fn save(&self, to: &mut State) {
        if let Some(shaper) = &self.shaper {
            let mut part = State::default();
            shaper.save(&mut part);
            to.put_part("shaping", part);
        }
        if let Some(mean) = &self.shaped_mean {
            to.put("shaped_mean", &[mean.len()], Arc::clone(mean));
        }
        if let Some(mask) = &self.mask {
            let (classes, units) = mask.kept().dim();
            to.put("mask", &[classes, units], mask.kept().iter().map(|kept| u8::from(*kept)).collect::<Vec<u8>>());
        }
    }

    /// Reads what [`Stem::save`] wrote. The mask must be the one that the sparsity gives on this very `training`, and on the
    /// mean of shaped features that is read with it: the bank is not shaped again.
    pub(crate) fn load(spec: &StemSpec, state: &mut State, on: &Training<'_>) -> Result<Self> {
        let head = on.head();
        let load = |shaping: &Arc<dyn Shaping>| -> Result<Arc<dyn Shaper>> {
            let mut part = state.take_part("shaping");
            let shaper = shaping.load(&mut part, head.units())?;
            part.finish()?;
            check_shaper(&*shaper, shaping, on)?;
            Ok(shaper)
        };
        let shaper = spec.shaping.as_ref().map(load).transpose()?;
        let takes_shaped = spec.sparsity.as_ref().is_some_and(|sparsity| sparsity.takes_shaped_mean());
        let shaped_mean = takes_shaped.then(|| state.take::<f64>("shaped_mean", &[Some(head.units())])).transpose()?;
        shaped_mean.iter().try_for_each(|mean| check_finite("shaped_mean", mean))?;
        let on = &on.shaped(shaped_mean.clone());
        let mask = match &spec.sparsity {
            None => None,
            Some(sparsity) => {
                let kept = state.take::<u8>("mask", &[Some(head.classes()), Some(head.units())])?;
                let mask = sparsity.mask(on)?;
                if !mask.kept().iter().map(|kept| u8::from(*kept)).eq(kept.iter().copied()) {
                    return Err(Error::new(ErrorKind::Malformed, "another mask")
                        .tensor("mask")
                        .expected(format!("the weights that `{spec}` keeps of this head with these statistics")));
                }
                Some(mask)
            }
        };
        Ok(Self { shaped_mean, ..Self::new(Arc::clone(head), shaper, mask)? })
    }

    /// The logits `[N, C]` as operators, and the features that they are of.
    pub(crate) fn express(&self, graph: &mut Graph) -> Option<Views> {
        let features = graph.features();
        let shaped = match &self.shaper {
            None => features,
            Some(shaper) => shaper.express(graph, features)?,
        };
        let logits = graph.push(Op::Logits(shaped, Arc::clone(&self.head), self.mask.clone()));
        Some(Views { features, logits })
    }
}

impl Readout for Stem {
    fn logits(&self, rows: &[f32]) -> Result<Vec<f32>> {
        let units = self.head.units();
        let mut logits = vec![0.0; rows.len() / units * self.head.classes()];
        let mut scratch = Scratch::default();
        let finite = match self.shaper() {
            None => self.kernel.logits(rows, &mut scratch, &mut logits),
            Some(shaper) => {
                let (mut shaped, mut workspace) = (rows.to_vec(), Workspace::default());
                shaped.chunks_exact_mut(units).for_each(|row| shaper.shape(row, &mut workspace));
                self.kernel.logits(&shaped, &mut scratch, &mut logits)
            }
        };
        match finite {
            true => Ok(logits),
            false => {
                Err(Error::new(ErrorKind::NotFinite, "NaN or infinity").tensor("features").expected("finite values"))
            }
        }
    }
}

/// The mean `[D]` of the shaped rows of a bank, each as often as it was seen. Parts are added in their order, whatever the
/// threads.
fn mean_of_shaped(shaper: &dyn Shaper, bank: &BankRows) -> Arc<[f64]> {
    let parts: Vec<(Vec<f64>, f64)> = bank
        .features
        .par_chunks(TOGETHER * bank.units)
        .zip(bank.counts.par_chunks(TOGETHER))
        .map(|(rows, counts)| {
            let (mut sums, mut shaped, mut workspace) = (vec![0.0; bank.units], Vec::new(), Workspace::default());
            for (row, count) in rows.chunks_exact(bank.units).zip(counts) {
                shaped.clear();
                shaped.extend_from_slice(row);
                shaper.shape(&mut shaped, &mut workspace);
                let add = |(sum, value): (&mut f64, &f32)| *sum += *count as f64 * f64::from(*value);
                sums.iter_mut().zip(&shaped).for_each(add);
            }
            (sums, counts.iter().map(|count| *count as f64).sum())
        })
        .collect();
    let rows: f64 = parts.iter().map(|(_, rows)| rows).sum();
    (0..bank.units).map(|unit| parts.iter().map(|(sums, _)| sums[unit]).sum::<f64>() / rows).collect()
}

/// What can be fitted again from these statistics must be what was read.
fn check_shaper(shaper: &dyn Shaper, shaping: &Arc<dyn Shaping>, on: &Training<'_>) -> Result<()> {
    let state_of = |shaper: &dyn Shaper| {
        let mut state = State::default();
        shaper.save(&mut state);
        state
    };
    match shaping.fit(on) {
        Ok(fitted) if state_of(&*fitted) != state_of(shaper) => Err(Error::new(ErrorKind::Malformed, "another state")
            .tensor(shaping.card().name)
            .expected("the one that follows from these statistics")),
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}

impl Pipeline {
    pub(crate) fn new(spec: PipelineSpec, stem: Arc<Stem>, scorer: Arc<dyn Scorer>) -> Self {
        Self { takes: spec.score.takes(), spec, stem, scorer }
    }

    pub(crate) fn save(&self, to: &mut State) {
        let mut part = State::default();
        self.scorer.save(&mut part);
        to.put_part("score", part);
    }

    /// Reads what [`Pipeline::save`] wrote.
    pub(crate) fn load(spec: &PipelineSpec, stem: Arc<Stem>, state: &mut State) -> Result<Self> {
        let mut part = state.take_part("score");
        let scorer = spec.score.load(&mut part, &stem.head)?;
        part.finish()?;
        Ok(Self::new(spec.clone(), stem, scorer))
    }

    /// The score `[N, 1]` as operators.
    pub(crate) fn express(&self, graph: &mut Graph) -> Option<Wire> {
        let views = self.stem.express(graph)?;
        self.scorer.express(graph, &views)
    }
}
