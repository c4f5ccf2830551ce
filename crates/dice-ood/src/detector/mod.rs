//! A fitted detector: features in, scores out.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ndarray::ArrayView2;

use crate::calibration::Calibration;
use crate::error::{Error, ErrorKind, Missing, Result};
use crate::features::Block;
use crate::graph::{Graph, Wire};
use crate::head::LinearHead;
use crate::mask::Mask;
use crate::methods::Member;
use crate::node::Node;
use crate::pipeline::{Fitting, Pipeline};
use crate::plan::{NonFinite, Plan, Scored, wrong_shape};
use crate::spec::{MemberSpec, PipelineSpec, Spec};
use crate::state::State;
use crate::statistics::Statistics;

impl Spec {
    /// Fits this spec to a head and the statistics of its training features. To fit several, prepare them all on one
    /// [`Fitting`], so that they share what they have in common.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where head and statistics disagree on D, [`ErrorKind::Missing`] where the statistics lack
    /// what the spec needs and for a combination, whose members also rest on reference inputs: see [`Spec::prepare`];
    /// [`ErrorKind::Argument`] where parameters do not fit the data.
    pub fn fit(&self, head: &Arc<LinearHead>, statistics: &Statistics) -> Result<Detector> {
        let prepared = self.prepare(&Fitting::new(head, statistics)?)?;
        match self {
            Self::Pipeline(_) => prepared.finish(&[]),
            Self::Combined { .. } => Err(Error::lacking(Missing::Reference, "only training statistics")
                .argument(format!("detector '{self}'"))
                .expected("reference inputs, held out of the fit, for the p-values of its members")
                .fix("fit and calibrate it in one session, or prepare it and give its members' scores")),
        }
    }

    /// Fits the pipelines of this spec.
    ///
    /// # Errors
    /// As [`Spec::fit`].
    pub fn prepare(&self, on: &Fitting<'_>) -> Result<Prepared> {
        let pipelines = self.pipelines().into_iter().map(|pipeline| on.pipeline(pipeline)).collect::<Result<_>>()?;
        Ok(Prepared { spec: self.clone(), pipelines })
    }
}

/// A spec whose pipelines are fitted, before it knows what reference inputs score.
#[derive(Debug, Clone)]
pub struct Prepared {
    spec: Spec,
    pipelines: Vec<Arc<Pipeline>>,
}

impl Prepared {
    /// What is being fitted.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    pub(crate) fn fitted(&self) -> &[Arc<Pipeline>] {
        &self.pipelines
    }

    /// Whether [`Prepared::finish`] takes scores of reference inputs.
    pub fn takes_reference(&self) -> bool {
        self.spec.as_pipeline().is_none()
    }

    /// The pipelines, in the order of [`Spec::pipelines`], each as a detector of its own.
    pub fn pipelines(&self) -> Vec<Detector> {
        self.pipelines.iter().map(|pipeline| Detector::of_pipeline(Arc::clone(pipeline))).collect()
    }

    /// The detector. `reference` holds what each pipeline scores the reference inputs, `[n]` each, row by row: inputs that
    /// neither the fit nor the detector's own threshold rest on. A pipeline by itself takes none.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] for another number of pipelines or rows, [`ErrorKind::NotFinite`], and [`ErrorKind::Empty`] for
    /// a combination without reference inputs.
    pub fn finish(self, reference: &[Vec<f64>]) -> Result<Detector> {
        if self.takes_reference() {
            check_scores("reference scores", reference, self.pipelines.len())?;
        }
        let node = self.node(&self.spec, reference)?;
        let reference = if self.takes_reference() { reference.to_vec() } else { Vec::new() };
        Ok(Detector::new(self.spec, node, self.pipelines, reference))
    }

    fn node(&self, spec: &Spec, reference: &[Vec<f64>]) -> Result<Node> {
        match spec {
            Spec::Pipeline(spec) => Ok(Node::Pipeline(Arc::clone(&self.pipelines[self.place(spec)]))),
            Spec::Combined { rule, members } => {
                let nodes: Vec<Node> =
                    members.iter().map(|member| self.node(&member.spec, reference)).collect::<Result<_>>()?;
                let names: Vec<String> = members.iter().map(|member| member.spec.to_string()).collect();
                let calibration = |(node, name): (&Node, &String)| {
                    let scores = node.fold(&|pipeline| &reference[self.place(&pipeline.spec)]).into_owned();
                    let named = |error: Error| error.tensor(format!("reference scores of '{name}'"));
                    Calibration::new(scores).map(Arc::new).map_err(named)
                };
                let references: Vec<Arc<Calibration>> =
                    nodes.iter().zip(&names).map(calibration).collect::<Result<_>>()?;
                let parts = names.iter().zip(&references).zip(members);
                let fitted: Vec<Member<'_>> = parts
                    .map(|((name, reference), member)| Member { name, reference, weight: member.weight })
                    .collect();
                Ok(Node::Combined { rule: rule.fit(&fitted)?, members: nodes })
            }
        }
    }

    /// Which pipeline `spec` is.
    fn place(&self, spec: &PipelineSpec) -> usize {
        self.pipelines.iter().position(|pipeline| pipeline.spec == *spec).unwrap_or(0)
    }
}

/// A detector that has been fitted: it scores inputs, higher = more in-distribution.
#[derive(Debug, Clone)]
pub struct Detector {
    spec: Spec,
    node: Node,
    pipelines: Vec<Arc<Pipeline>>,
    /// What each pipeline scores the reference inputs; empty for a pipeline by itself.
    reference: Arc<Vec<Vec<f64>>>,
    plan: Arc<Plan>,
}

impl Detector {
    fn new(spec: Spec, node: Node, pipelines: Vec<Arc<Pipeline>>, reference: Vec<Vec<f64>>) -> Self {
        let plan = Arc::new(Plan::of_nodes([node.clone()]));
        Self { spec, node, pipelines, reference: Arc::new(reference), plan }
    }

    pub(crate) fn of_pipeline(pipeline: Arc<Pipeline>) -> Self {
        let spec = Spec::Pipeline(pipeline.spec.clone());
        Self::new(spec, Node::Pipeline(Arc::clone(&pipeline)), vec![pipeline], Vec::new())
    }

    /// A detector of loaded parts.
    pub(crate) fn of_parts(spec: Spec, pipelines: Vec<Arc<Pipeline>>, reference: &[Vec<f64>]) -> Result<Self> {
        Prepared { spec, pipelines }.finish(reference)
    }

    /// What was fitted.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The dense head.
    pub fn head(&self) -> &Arc<LinearHead> {
        &self.pipelines[0].stem.head
    }

    /// The kept weights `[C, D]` of a pipeline; `None` where all are kept by definition, and for a combination.
    pub fn mask(&self) -> Option<&Mask> {
        match &self.node {
            Node::Pipeline(pipeline) => pipeline.stem.mask(),
            Node::Combined { .. } => None,
        }
    }

    /// The activation at which a pipeline clips features.
    pub fn clip(&self) -> Option<f64> {
        match &self.node {
            Node::Pipeline(pipeline) => pipeline.stem.clip().map(f64::from),
            Node::Combined { .. } => None,
        }
    }

    /// How scoring runs on this machine, in words: the instruction-set level (`portable`, `avx2` or `avx512`) and the
    /// layout of the weights that was chosen for the head's shape and density.
    pub fn kernel(&self) -> String {
        self.pipelines[0].stem.kernel.describe()
    }

    /// How many reference inputs the members' p-values rest on; 0 for a pipeline by itself.
    pub fn reference_size(&self) -> usize {
        self.reference.first().map_or(0, Vec::len)
    }

    /// Bytes of the tensors that a file holds of it: fitted scores, masks and reference scores, not the head, the statistics and the
    /// calibration scores. A bank counts, which a file stores once for all detectors that rest on it.
    pub fn bytes(&self) -> usize {
        let mut state = State::default();
        for (place, pipeline) in self.pipelines.iter().enumerate() {
            let first = !self.pipelines[..place].iter().any(|known| Arc::ptr_eq(&known.stem, &pipeline.stem));
            let mut part = State::default();
            pipeline.save(&mut part);
            if first {
                pipeline.stem.save(&mut part);
            }
            state.put_part(&place.to_string(), part);
        }
        state.share();
        let tensors: usize = state.tensors().map(|(_, tensor)| tensor.values.bytes().len()).sum();
        let reference: usize = self.reference.iter().map(|scores| size_of_val(&scores[..])).sum();
        tensors + reference
    }

    /// Scores `[n]` of inputs, from what each pipeline scores them, `[n]` each, in the order of [`Spec::pipelines`].
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] for another number of pipelines or rows.
    pub fn combine(&self, scores: &[Vec<f64>]) -> Result<Vec<f64>> {
        check_scores("scores", scores, self.pipelines.len())?;
        let place = |pipeline: &Arc<Pipeline>| self.pipelines.iter().position(|known| Arc::ptr_eq(known, pipeline));
        Ok(self.node.fold(&|pipeline| &scores[place(pipeline).unwrap_or(0)]).into_owned())
    }

    /// The members of a combination as detectors of their own, which share its steps; none for a pipeline.
    pub fn members(&self) -> Vec<Self> {
        let (Spec::Combined { members: specs, .. }, Node::Combined { members: nodes, .. }) = (&self.spec, &self.node)
        else {
            return Vec::new();
        };
        let member = |(spec, node): (&MemberSpec, &Node)| {
            let own = |pipeline: &PipelineSpec| self.pipelines.iter().position(|known| known.spec == *pipeline);
            let places: Vec<usize> = spec.spec.pipelines().into_iter().filter_map(own).collect();
            let pipelines = places.iter().map(|place| Arc::clone(&self.pipelines[*place])).collect();
            let reference = match node {
                Node::Pipeline(_) => Vec::new(),
                Node::Combined { .. } => places.iter().map(|place| self.reference[*place].clone()).collect(),
            };
            Self::new(spec.spec.clone(), node.clone(), pipelines, reference)
        };
        specs.iter().zip(nodes).map(member).collect()
    }

    /// What each of [`Detector::members`] says of inputs, `[members][n]`, from what it scores them, `[members][n]`: the terms of which
    /// the combined score is the sum, or for `simes` of which it is the smallest. The lower, the more a member speaks against the
    /// input; NaN where a member could not score it.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] for another number of members or rows.
    pub fn votes(&self, scores: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        check_lists("scores of members", scores, self.node.members(), "member")?;
        Ok(self.node.votes(scores))
    }

    /// The score `[N, 1]` as operators on features `[N, D]`; `None` where a step has no such expression.
    pub fn express(&self, graph: &mut Graph) -> Option<Wire> {
        self.node.express(graph)
    }

    pub(crate) fn fitted(&self) -> &[Arc<Pipeline>] {
        &self.pipelines
    }

    pub(crate) fn reference(&self) -> &[Vec<f64>] {
        &self.reference
    }

    /// Scores `features` `[N, D]`; higher = more in-distribution. The result for a row depends on that row alone, not
    /// on the batch around it nor on the number of threads.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] for another D; [`ErrorKind::NotFinite`], naming row and column, for NaN or infinity, and
    /// for features so large that a score overflows.
    pub fn score(&self, features: ArrayView2<'_, f32>) -> Result<Vec<f64>> {
        Ok(self.evaluate(features, NonFinite::Reject)?.scores)
    }

    /// Scores one input `[D]` on the calling thread; a pipeline allocates nothing once it has been called before: for
    /// servers and loops that have no batch. The score is that of the same row in any batch.
    ///
    /// # Errors
    /// As [`Detector::score`].
    pub fn score_one(&self, features: &[f32]) -> Result<f64> {
        if features.len() != self.head().units() {
            return Err(wrong_shape(self.head(), &[features.len()], "[D]"));
        }
        self.plan.score_one(features)
    }

    /// Scores the rows of `block`; errors name its file and row.
    ///
    /// # Errors
    /// As [`Detector::score`], but values that are not finite are treated as `non_finite` says.
    pub fn score_block(&self, block: &Block, non_finite: NonFinite) -> Result<Scored> {
        only(self.plan.score_block(block, non_finite)?)
    }

    /// Scores and predicted classes of `features` `[N, D]`.
    ///
    /// # Errors
    /// As [`Detector::score_block`].
    pub fn evaluate(&self, features: ArrayView2<'_, f32>, non_finite: NonFinite) -> Result<Scored> {
        only(self.plan.score(features, non_finite)?)
    }

    /// [`Detector::evaluate`], which ends soon after `stop` is set.
    ///
    /// # Errors
    /// As [`Detector::evaluate`], and [`ErrorKind::Io`] where it was stopped.
    pub fn evaluate_unless(
        &self,
        features: ArrayView2<'_, f32>,
        non_finite: NonFinite,
        stop: &AtomicBool,
    ) -> Result<Scored> {
        only(self.plan.score_unless(features, non_finite, stop)?)
    }
}

impl Plan {
    /// Arranges `detectors`. Those that were fitted or loaded together share steps.
    pub fn new<'a>(detectors: impl IntoIterator<Item = &'a Detector>) -> Self {
        Self::of_nodes(detectors.into_iter().map(|detector| detector.node.clone()))
    }

    /// The same for a sweep: detectors whose masks nest cost little more together than one. Sums then run in another order, so that
    /// scores differ by rounding from those of [`Plan::new`].
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] for an instruction set that this machine does not have.
    pub fn nesting<'a>(detectors: impl IntoIterator<Item = &'a Detector>) -> Result<Self> {
        Self::new(detectors).nest()
    }
}

/// One list of scores for each pipeline, all of one length.
fn check_scores(what: &str, scores: &[Vec<f64>], pipelines: usize) -> Result<()> {
    check_lists(what, scores, pipelines, "pipeline")
}

/// One list of scores for each of so many things, all of one length.
fn check_lists(what: &str, scores: &[Vec<f64>], count: usize, of: &str) -> Result<()> {
    if scores.len() != count {
        return Err(Error::new(ErrorKind::Shape, format!("{} lists of scores", scores.len()))
            .tensor(what)
            .expected(format!("{count}, one for each {of}")));
    }
    let rows = scores.first().map_or(0, Vec::len);
    match scores.iter().find(|scores| scores.len() != rows) {
        None => Ok(()),
        Some(other) => Err(Error::new(ErrorKind::Shape, format!("[{}]", other.len()))
            .tensor(what)
            .expected(format!("[{rows}], as for the other {of}s"))),
    }
}

fn only(mut scored: Vec<Scored>) -> Result<Scored> {
    scored.pop().ok_or_else(|| Error::new(ErrorKind::Empty, "no detector"))
}

#[cfg(test)]
mod tests;
