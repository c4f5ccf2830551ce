//! Any number of detectors over the same rows, with nothing computed twice.
//!
//! Rows are cut into tasks for threads. Within a task, pipelines with one stem share shaped rows and one visit of the logits;
//! each score then gets the views that it takes, and combinations fold the scores of their members.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::ArrayView2;
use rayon::prelude::*;

use crate::error::{Error, ErrorKind, Result};
use crate::features::{Block, any_not_finite, not_finite};
use crate::head::LinearHead;
use crate::kernel::{Kernel, Nested, Scratch, Summaries, Summary, Wanted, is_within};
use crate::mask::Mask;
use crate::node::Node;
use crate::pipeline::{Pipeline, Stem};
use crate::views::{Rows, Workspace};

/// What to do with an input whose features hold NaN or infinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NonFinite {
    /// Refuse, naming its row and column.
    #[default]
    Reject,
    /// Score it negative infinity: out-of-distribution, whatever the threshold.
    OutOfDistribution,
}

/// The class of an input that could not be scored: no label equals it.
pub const NO_CLASS: u32 = u32::MAX;

/// What a detector makes of some inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Scores `[N]`, higher = more in-distribution.
    pub scores: Vec<f64>,
    /// Predicted classes `[N]` of the detector's own (shaped, sparsified) head, that of the first member for a combination;
    /// [`NO_CLASS`] for inputs that could not be scored.
    pub classes: Vec<u32>,
}

impl Scored {
    fn new(scores: Vec<f64>, mut classes: Vec<u32>) -> Self {
        for (class, _) in classes.iter_mut().zip(&scores).filter(|(_, score)| **score == f64::NEG_INFINITY) {
            *class = NO_CLASS;
        }
        Self { scores, classes }
    }
}

/// The rows of each task, of at most `size` rows, of several kinds of values `[rows]`.
fn by_task<T>(kinds: &mut [Vec<T>], size: usize) -> Vec<Vec<&mut [T]>> {
    let tasks = kinds.first().map_or(0, |values| values.len().div_ceil(size));
    let mut parts: Vec<Vec<&mut [T]>> = (0..tasks).map(|_| Vec::with_capacity(kinds.len())).collect();
    for values in kinds {
        parts.iter_mut().zip(values.chunks_mut(size)).for_each(|(parts, part)| parts.push(part));
    }
    parts
}

/// The values, or a copy of them where they are asked for again.
fn give<T: Clone>(values: &mut Vec<T>, again: bool) -> Vec<T> {
    if again { values.clone() } else { std::mem::take(values) }
}

/// Working memory for a whole task.
#[derive(Debug, Default)]
struct Desk {
    workspace: Workspace,
    cleaned: Vec<f32>,
    shaped: Vec<f32>,
    logits: Vec<f32>,
    /// By temperature, `[n]` each.
    summaries: Vec<Summary>,
    /// Rows that cannot be scored.
    bad: Vec<bool>,
}

/// The working memory of threads, kept between calls.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "a desk changes hands for every single input, and a pointer is moved faster")]
struct Desks(Mutex<Vec<Box<Desk>>>);

impl Desks {
    fn with<T>(&self, work: impl FnOnce(&mut Desk) -> T) -> T {
        let free = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut desk = free().pop().unwrap_or_default();
        let result = work(&mut desk);
        free().push(desk);
        result
    }
}

/// Pipelines that share a stem.
#[derive(Debug)]
struct Group {
    stem: Arc<Stem>,
    /// At which logits are summarised; at least one, so that the predicted class is known.
    temperatures: Vec<f64>,
    logits: bool,
    /// Each pipeline's place among the plan's, and that of its temperature.
    members: Vec<(usize, usize)>,
}

/// Groups whose stems read the same rows and whose masks nest, the sparsest first.
#[derive(Debug)]
struct Nest {
    kernel: Nested,
    groups: Vec<usize>,
}

/// Fewer groups than this are visited one by one.
const FEWEST_NESTED: usize = 3;

/// Detectors arranged so that nothing is computed twice.
#[derive(Debug)]
pub struct Plan {
    pipelines: Vec<Arc<Pipeline>>,
    groups: Vec<Group>,
    /// Groups that are visited together; every other group by itself.
    nests: Vec<Nest>,
    /// For each detector, how its score is made, and the group whose predictions are its own.
    detectors: Vec<(Node, usize)>,
    units: usize,
    desks: Desks,
}

/// A value that cannot be scored: its row, its column, and itself.
type Unscorable = (usize, usize, f32);

impl Plan {
    pub(crate) fn of_nodes(nodes: impl IntoIterator<Item = Node>) -> Self {
        let mut plan = Self {
            pipelines: Vec::new(),
            groups: Vec::new(),
            nests: Vec::new(),
            detectors: Vec::new(),
            units: 1,
            desks: Desks::default(),
        };
        for node in nodes {
            let mut leaves = Vec::new();
            node.leaves(&mut leaves);
            leaves.iter().for_each(|pipeline| plan.add(pipeline));
            let own = leaves.first().map_or(0, |first| plan.group_of(first));
            plan.detectors.push((node, own));
        }
        plan.units = plan.pipelines.first().map_or(1, |first| first.stem.head.units());
        plan
    }

    /// Visits the logits of pipelines whose masks nest together, so that twenty of them cost a quarter of what they cost apart, or
    /// less. Sums then run in another order: scores differ by rounding from those of the same detectors in a plan without nests.
    pub(crate) fn nest(mut self) -> Result<Self> {
        let kept = |group: &usize| self.groups[*group].stem.mask().map_or(usize::MAX, Mask::count);
        let mut left: Vec<usize> = (0..self.groups.len()).collect();
        left.sort_by_key(kept);
        while !left.is_empty() {
            let mut chain: Vec<usize> = vec![left.remove(0)];
            left.retain(|group| {
                let (inner, outer) = (&self.groups[chain[chain.len() - 1]].stem, &self.groups[*group].stem);
                let joins = inner.reads_as(outer) && is_within(inner.mask(), outer.mask());
                if joins {
                    chain.push(*group);
                }
                !joins
            });
            if chain.len() >= FEWEST_NESTED {
                let first = &self.groups[chain[0]].stem;
                let masks: Vec<Option<&Mask>> = chain.iter().map(|group| self.groups[*group].stem.mask()).collect();
                let kernel = Nested::new(&first.head, &masks, first.clip())?;
                self.nests.push(Nest { kernel, groups: chain });
            }
        }
        Ok(self)
    }

    fn is_nested(&self, group: usize) -> bool {
        self.nests.iter().any(|nest| nest.groups.contains(&group))
    }

    fn add(&mut self, pipeline: &Arc<Pipeline>) {
        if self.pipelines.iter().any(|known| Arc::ptr_eq(known, pipeline)) {
            return;
        }
        let group = self.group_of(pipeline);
        if group == self.groups.len() {
            let stem = Arc::clone(&pipeline.stem);
            self.groups.push(Group { stem, temperatures: Vec::new(), logits: false, members: Vec::new() });
        }
        let group = &mut self.groups[group];
        group.logits |= pipeline.takes.logits;
        let temperature = pipeline.takes.temperature.or(group.temperatures.first().copied()).unwrap_or(1.0);
        let place = group.temperatures.iter().position(|known| *known == temperature).unwrap_or_else(|| {
            group.temperatures.push(temperature);
            group.temperatures.len() - 1
        });
        group.members.push((self.pipelines.len(), place));
        self.pipelines.push(Arc::clone(pipeline));
    }

    fn group_of(&self, pipeline: &Pipeline) -> usize {
        let same = |group: &Group| group.stem.is(&pipeline.stem);
        self.groups.iter().position(same).unwrap_or(self.groups.len())
    }

    /// How many visits of logits the plan takes for an input.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Inputs that make a task for a thread.
    fn task(&self) -> usize {
        let alone = (0..self.groups.len()).filter(|group| !self.is_nested(*group));
        let alone = alone.map(|group| self.groups[group].stem.kernel.task());
        let nests = self.nests.iter().map(|nest| nest.kernel.task());
        let scorers = self.pipelines.iter().map(|pipeline| pipeline.scorer.task());
        alone.chain(nests).chain(scorers).max().unwrap_or(1)
    }

    /// What each detector makes of the rows of `block`, in the order of the detectors; errors name its file and row.
    ///
    /// # Errors
    /// As [`Plan::score`].
    pub fn score_block(&self, block: &Block, non_finite: NonFinite) -> Result<Vec<Scored>> {
        self.score_at(block.view(), non_finite, None, |row, column, value| block.not_finite(row, column, value))
            .map_err(|error| block.located(error))
    }

    /// What each detector makes of `features` `[N, D]`, in the order of the detectors.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] for another D; [`ErrorKind::NotFinite`],
    /// naming row and column, for NaN or infinity and for features so large that a score overflows, unless these are to be
    /// scored as out-of-distribution.
    pub fn score(&self, features: ArrayView2<'_, f32>, non_finite: NonFinite) -> Result<Vec<Scored>> {
        self.score_at(features, non_finite, None, |row, column, value| not_finite(row as u64, column, value))
    }

    /// [`Plan::score`], which ends soon after `stop` is set: it is looked at before each few rows.
    ///
    /// # Errors
    /// As [`Plan::score`], and [`ErrorKind::Io`] where it was stopped.
    pub fn score_unless(
        &self,
        features: ArrayView2<'_, f32>,
        non_finite: NonFinite,
        stop: &AtomicBool,
    ) -> Result<Vec<Scored>> {
        self.score_at(features, non_finite, Some(stop), |row, column, value| not_finite(row as u64, column, value))
    }

    fn score_at(
        &self,
        features: ArrayView2<'_, f32>,
        non_finite: NonFinite,
        stop: Option<&AtomicBool>,
        located: impl Fn(usize, usize, f32) -> Error + Sync,
    ) -> Result<Vec<Scored>> {
        if let Some(first) = self.pipelines.first().filter(|_| features.ncols() != self.units) {
            return Err(wrong_shape(&first.stem.head, features.shape(), "[N, D]"));
        }
        let features = features.as_standard_layout();
        let features = features.as_slice().unwrap_or_default();
        let (units, size) = (self.units, self.task());
        let rows = features.len() / units;
        // By pipeline or group, so that a score that is no part of another is where it is to be.
        let mut scores: Vec<Vec<f64>> = self.pipelines.iter().map(|_| vec![0.0; rows]).collect();
        let mut classes: Vec<Vec<u32>> = self.groups.iter().map(|_| vec![0; rows]).collect();
        features
            .par_chunks(size * units)
            .zip(by_task(&mut scores, size).into_par_iter().zip(by_task(&mut classes, size)))
            .enumerate()
            .try_for_each(|(task, (features, (mut scores, mut classes)))| {
                if stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                    return Err(Error::new(ErrorKind::Io, "interrupted"));
                }
                self.desks
                    .with(|desk| self.run(desk, features, non_finite, &mut scores, &mut classes))
                    .map_err(|(row, column, value)| located(task * size + row, column, value))
            })?;
        Ok(self.fold(scores, classes))
    }

    /// Scores a few rows on one thread: `scores` by pipeline, `classes` by group.
    fn run(
        &self,
        desk: &mut Desk,
        features: &[f32],
        non_finite: NonFinite,
        scores: &mut [&mut [f64]],
        classes: &mut [&mut [u32]],
    ) -> std::result::Result<(), Unscorable> {
        desk.bad.clear();
        // A fused kernel sees while it reads whether a value is not finite; shaping could hide it.
        let fused = self.groups.first().is_none_or(|first| first.stem.shaper().is_none());
        if (!fused && any_not_finite(features)) || !self.run_groups(desk, features, scores, classes) {
            self.clean(desk, features, non_finite)?;
            let cleaned = std::mem::take(&mut desk.cleaned);
            self.run_groups(desk, &cleaned, scores, classes);
            desk.cleaned = cleaned;
        }
        self.check(desk, features, non_finite, scores)
    }

    /// False where the features are not finite.
    fn run_groups(
        &self,
        desk: &mut Desk,
        features: &[f32],
        scores: &mut [&mut [f64]],
        classes: &mut [&mut [u32]],
    ) -> bool {
        let mut groups = self.groups.iter().zip(&mut *classes).enumerate();
        let alone = groups.all(|(place, (group, classes))| {
            self.is_nested(place) || self.run_group(group, desk, features, scores, classes)
        });
        alone && self.nests.iter().all(|nest| self.run_nest(nest, desk, features, scores, classes))
    }

    /// Copies the rows, those that are not finite as zeros.
    fn clean(&self, desk: &mut Desk, features: &[f32], non_finite: NonFinite) -> std::result::Result<(), Unscorable> {
        desk.cleaned.clear();
        desk.cleaned.extend_from_slice(features);
        for (index, row) in desk.cleaned.chunks_exact_mut(self.units).enumerate() {
            let column = row.iter().position(|value| !value.is_finite());
            match (column, non_finite) {
                (Some(column), NonFinite::Reject) => return Err((index, column, row[column])),
                (Some(_), NonFinite::OutOfDistribution) => row.fill(0.0),
                (None, _) => {}
            }
            desk.bad.push(column.is_some());
        }
        Ok(())
    }

    fn run_group(
        &self,
        group: &Group,
        desk: &mut Desk,
        features: &[f32],
        scores: &mut [&mut [f64]],
        classes: &mut [u32],
    ) -> bool {
        let Desk { workspace, shaped, logits, summaries, .. } = desk;
        let read = group.stem.shaped(features, shaped, workspace);
        let rows = classes.len();
        if !group.visit(read, rows, &mut workspace.scratch, logits, summaries) && group.stem.shaper().is_none() {
            return false;
        }
        self.score_group(group, features, (&*logits, &*summaries), workspace, scores, classes);
        true
    }

    /// The scores and classes of a group, from the logits and summaries of `features` that it takes.
    fn score_group(
        &self,
        group: &Group,
        features: &[f32],
        (logits, summaries): (&[f32], &[Summary]),
        workspace: &mut Workspace,
        scores: &mut [&mut [f64]],
        classes: &mut [u32],
    ) {
        let rows = classes.len();
        for (class, summary) in classes.iter_mut().zip(summaries) {
            *class = summary.argmax;
        }
        for (place, temperature) in &group.members {
            let view = Rows {
                units: self.units,
                classes: group.stem.head.classes(),
                features,
                logits,
                summaries: &summaries[temperature * rows..][..rows],
            };
            self.pipelines[*place].scorer.score(&view, workspace, scores[*place]);
        }
    }

    /// The same for groups whose masks nest, from one visit. `classes` are those of all groups.
    fn run_nest(
        &self,
        nest: &Nest,
        desk: &mut Desk,
        features: &[f32],
        scores: &mut [&mut [f64]],
        classes: &mut [&mut [u32]],
    ) -> bool {
        let rows = features.len() / self.units;
        let Desk { workspace, shaped, logits, summaries, .. } = desk;
        let members: Vec<&Group> = nest.groups.iter().map(|group| &self.groups[*group]).collect();
        let stem = &members[0].stem;
        let read = stem.shaped(features, shaped, workspace);
        let sizes = |group: &&Group| {
            (if group.logits { rows * stem.head.classes() } else { 0 }, rows * group.temperatures.len())
        };
        let (of_logits, of_summaries) =
            members.iter().map(sizes).fold((0, 0), |sums, sizes| (sums.0 + sizes.0, sums.1 + sizes.1));
        logits.clear();
        logits.resize(of_logits, 0.0);
        summaries.clear();
        summaries.resize(of_summaries, Summary::default());
        let (mut logits_left, mut summaries_left) = (&mut logits[..], &mut summaries[..]);
        let mut parts: Vec<(Vec<Summaries<'_>>, Option<&mut [f32]>)> = Vec::with_capacity(members.len());
        for group in &members {
            let (logits, summaries) = sizes(group);
            let (own_logits, later) = logits_left.split_at_mut(logits);
            logits_left = later;
            let (own, later) = summaries_left.split_at_mut(summaries);
            summaries_left = later;
            let own = group.temperatures.iter().zip(own.chunks_exact_mut(rows));
            let own = own.map(|(temperature, out)| Summaries::at(*temperature, out)).collect();
            parts.push((own, group.logits.then_some(own_logits)));
        }
        let mut wanted: Vec<Wanted<'_, '_>> =
            parts.iter_mut().map(|(summaries, logits)| Wanted { summaries, logits: logits.take() }).collect();
        if !nest.kernel.visit(read, &mut workspace.scratch, &mut wanted) && stem.shaper().is_none() {
            return false;
        }
        drop(wanted);
        drop(parts);
        let (mut logits_left, mut summaries_left) = (&logits[..], &summaries[..]);
        for (place, group) in nest.groups.iter().zip(&members) {
            let (of_logits, of_summaries) = sizes(group);
            let (own_logits, later) = logits_left.split_at(of_logits);
            logits_left = later;
            let (own, later) = summaries_left.split_at(of_summaries);
            summaries_left = later;
            self.score_group(group, features, (own_logits, own), workspace, scores, classes[*place]);
        }
        true
    }

    /// Scores that are not finite are refused, or become negative infinity.
    fn check(
        &self,
        desk: &Desk,
        features: &[f32],
        non_finite: NonFinite,
        scores: &mut [&mut [f64]],
    ) -> std::result::Result<(), Unscorable> {
        if desk.bad.is_empty() && scores.iter().all(|scores| scores.iter().all(|score| score.is_finite())) {
            return Ok(());
        }
        for (row, score) in scores.iter_mut().flat_map(|scores| scores.iter_mut().enumerate()) {
            let unread = desk.bad.get(row).is_some_and(|bad| *bad);
            if score.is_finite() && !unread {
                continue;
            }
            if non_finite == NonFinite::Reject && !unread {
                // Finite features whose score overflows: name the largest.
                let features = &features[row * self.units..][..self.units];
                let largest =
                    (0..self.units).max_by(|a, b| features[*a].abs().total_cmp(&features[*b].abs())).unwrap_or(0);
                return Err((row, largest, features[largest]));
            }
            *score = f64::NEG_INFINITY;
        }
        Ok(())
    }

    /// From the scores of pipelines, and the classes of groups, to what the detectors say.
    fn fold(&self, mut scores: Vec<Vec<f64>>, mut classes: Vec<Vec<u32>>) -> Vec<Scored> {
        let combined = |node: &Node| match node {
            Node::Pipeline(_) => None,
            Node::Combined { .. } => Some(node.fold(&|pipeline| &scores[self.place(pipeline)]).into_owned()),
        };
        let combined: Vec<Option<Vec<f64>>> = self.detectors.iter().map(|(node, _)| combined(node)).collect();
        // The last detector that asks for values gets them, those before it a copy.
        let place = |node: &Node| match node {
            Node::Pipeline(pipeline) => Some(self.place(pipeline)),
            Node::Combined { .. } => None,
        };
        let places: Vec<_> = self.detectors.iter().map(|(node, group)| (place(node), *group)).collect();
        let detectors = combined.into_iter().enumerate().map(|(index, combined)| {
            let ((pipeline, group), later) = (places[index], &places[index + 1..]);
            let own = |place: usize| give(&mut scores[place], later.iter().any(|other| other.0 == Some(place)));
            let own_scores = combined.or_else(|| pipeline.map(own)).unwrap_or_default();
            Scored::new(own_scores, give(&mut classes[group], later.iter().any(|other| other.1 == group)))
        });
        detectors.collect()
    }

    /// Scores one row on the calling thread.
    pub(crate) fn score_one(&self, features: &[f32]) -> Result<f64> {
        match &self.detectors[0].0 {
            Node::Pipeline(_) => {
                let mut score = [0.0];
                self.run_one(features, &mut [&mut score], &mut [&mut [0]])?;
                Ok(score[0])
            }
            combined @ Node::Combined { .. } => {
                let (mut scores, mut classes) = (vec![0.0; self.pipelines.len()], vec![0; self.groups.len()]);
                let mut by_pipeline: Vec<&mut [f64]> = scores.chunks_mut(1).collect();
                let mut by_group: Vec<&mut [u32]> = classes.chunks_mut(1).collect();
                self.run_one(features, &mut by_pipeline, &mut by_group)?;
                Ok(combined.fold_one(&|pipeline| scores[self.place(pipeline)]))
            }
        }
    }

    /// Scores one row: `scores` by pipeline, `classes` by group.
    fn run_one(&self, features: &[f32], scores: &mut [&mut [f64]], classes: &mut [&mut [u32]]) -> Result<()> {
        self.desks
            .with(|desk| self.run(desk, features, NonFinite::Reject, scores, classes))
            .map_err(|(row, column, value)| not_finite(row as u64, column, value))
    }

    /// Which of the plan's pipelines this is.
    fn place(&self, pipeline: &Arc<Pipeline>) -> usize {
        self.pipelines.iter().position(|known| Arc::ptr_eq(known, pipeline)).unwrap_or(0)
    }
}

impl Group {
    /// Logits and summaries of `features` `[n, D]`, as far as members take them. False where features are not finite.
    fn visit(
        &self,
        features: &[f32],
        rows: usize,
        scratch: &mut Scratch,
        logits: &mut Vec<f32>,
        summaries: &mut Vec<Summary>,
    ) -> bool {
        let kernel: &Kernel = &self.stem.kernel;
        summaries.clear();
        summaries.resize(rows * self.temperatures.len(), Summary::default());
        logits.clear();
        if self.logits {
            logits.resize(rows * self.stem.head.classes(), 0.0);
        }
        if let ([temperature], false) = (&self.temperatures[..], self.logits) {
            return kernel.summarise(features, *temperature, scratch, summaries);
        }
        let parts = self.temperatures.iter().zip(summaries.chunks_exact_mut(rows));
        let mut parts: Vec<Summaries<'_>> = parts.map(|(temperature, out)| Summaries::at(*temperature, out)).collect();
        let logits = self.logits.then_some(&mut logits[..]);
        kernel.visit(features, scratch, Wanted { summaries: &mut parts, logits })
    }
}

pub(crate) fn wrong_shape(head: &LinearHead, found: &[usize], expected: &str) -> Error {
    let units = head.units();
    Error::new(ErrorKind::Shape, format!("{found:?}"))
        .tensor("features")
        .expected(format!("{}, as the head has {units} units", expected.replace('D', &units.to_string())))
        .fix("are these the penultimate features of the network that the detector was fitted to?")
}
