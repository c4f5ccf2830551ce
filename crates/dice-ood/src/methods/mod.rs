//! The registry of methods. A method is one file here and its two lines below.

mod ash_b;
mod ash_p;
mod ash_s;
mod cadref;
mod caref;
mod cauchy;
mod core;
mod dice;
mod doctor;
mod energy;
mod entropy;
mod evidence;
mod fdbd;
mod fisher;
mod r#gen;
mod gmm;
mod gradnorm;
mod kl_matching;
mod knn;
mod line;
mod lts;
mod max_cosine;
mod max_logit;
mod mds;
#[path = "mds++.rs"]
mod mds_plus_plus;
mod msp;
mod nci;
mod neco;
mod nnguide;
mod openmax;
mod ora;
mod pnml;
mod ras;
mod react;
mod relation;
mod residual;
mod rmds;
#[path = "rmds++.rs"]
mod rmds_plus_plus;
mod scale;
mod she;
mod simes;
mod stouffer;
mod temp_scale;
mod unit_drop;
mod unit_prune;
mod vim;
mod vra;
mod weight_drop;
mod weight_prune;
mod weiper;

/// Every method there is: shapings, sparsities, scores, combinations.
pub static METHODS: &[Entry] = &[
    shaping::<ash_b::AshB>(),
    shaping::<ash_p::AshP>(),
    shaping::<ash_s::AshS>(),
    shaping::<ras::Ras>(),
    shaping::<react::React>(),
    shaping::<scale::Scale>(),
    shaping::<vra::Vra>(),
    sparsity::<dice::Dice>(),
    sparsity::<unit_drop::UnitDrop>(),
    sparsity::<unit_prune::UnitPrune>(),
    sparsity::<weight_drop::WeightDrop>(),
    sparsity::<weight_prune::WeightPrune>(),
    score::<cadref::Cadref>(),
    score::<caref::Caref>(),
    score::<core::Core>(),
    score::<doctor::Doctor>(),
    score::<energy::Energy>(),
    score::<entropy::Entropy>(),
    score::<fdbd::Fdbd>(),
    score::<r#gen::Gen>(),
    score::<gmm::Gmm>(),
    score::<gradnorm::GradNorm>(),
    score::<kl_matching::KlMatching>(),
    score::<knn::Knn>(),
    score::<line::Line>(),
    score::<lts::Lts>(),
    score::<max_cosine::MaxCosine>(),
    score::<max_logit::MaxLogit>(),
    score::<mds::Mds>(),
    score::<mds_plus_plus::MdsOnSphere>(),
    score::<msp::Msp>(),
    score::<nci::Nci>(),
    score::<neco::Neco>(),
    score::<nnguide::NnGuide>(),
    score::<openmax::OpenMax>(),
    score::<ora::Ora>(),
    score::<pnml::Pnml>(),
    score::<relation::Relation>(),
    score::<residual::Residual>(),
    score::<rmds::Rmds>(),
    score::<rmds_plus_plus::RmdsOnSphere>(),
    score::<she::She>(),
    score::<temp_scale::TempScale>(),
    score::<vim::Vim>(),
    score::<weiper::Weiper>(),
    combination::<cauchy::Cauchy>(),
    combination::<evidence::Evidence>(),
    combination::<fisher::Fisher>(),
    combination::<simes::Simes>(),
    combination::<stouffer::Stouffer>(),
];

use std::fmt::Debug;
use std::sync::Arc;

use crate::calibration::Calibration;
use crate::card::{Arguments, Card};
use crate::error::Result;
use crate::graph::{Graph, Wire};
use crate::head::LinearHead;
use crate::mask::Mask;
use crate::state::State;
use crate::statistics::Needs;
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// What an author writes to make a type a method: its card, and the way from arguments and back.
pub trait Method: Debug + Send + Sync + Sized + 'static {
    /// What it says of itself.
    const CARD: &'static Card;

    /// The method with these parameters.
    ///
    /// # Errors
    /// A sentence, where parameters that are fine by themselves do not go together.
    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String>;

    /// The parameters that [`Method::from_arguments`] makes this method of.
    fn arguments(&self) -> Arguments;
}

/// A method behind a pointer.
pub trait Step: Debug + Send + Sync {
    /// What it says of itself.
    fn card(&self) -> &'static Card;
    /// Its parameters.
    fn arguments(&self) -> Arguments;
}

impl<M: Method> Step for M {
    fn card(&self) -> &'static Card {
        M::CARD
    }

    fn arguments(&self) -> Arguments {
        Method::arguments(self)
    }
}

/// What is done to features before the head reads them.
pub trait Shaping: Step {
    /// What the fit rests on.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Fits to training features.
    ///
    /// # Errors
    /// Where the statistics lack what [`Shaping::needs`] says, or cannot support the parameters.
    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Shaper>>;

    /// Reads what [`Shaper::save`] wrote, for features of `units` values.
    ///
    /// # Errors
    /// Where tensors are missing, of another shape, or not what a fit can give.
    fn load(&self, state: &mut State, units: usize) -> Result<Arc<dyn Shaper>>;
}

/// A fitted [`Shaping`].
pub trait Shaper: Debug + Send + Sync {
    /// Shapes one row `[D]`.
    fn shape(&self, row: &mut [f32], workspace: &mut Workspace);

    /// The activation c where shaping is no more than `min(h, c)`: the kernel then clips while it reads.
    fn clip(&self) -> Option<f32> {
        None
    }

    /// Puts what was fitted.
    fn save(&self, _to: &mut State) {}

    /// The shaped features as operators on `features`.
    fn express(&self, graph: &mut Graph, features: Wire) -> Option<Wire>;
}

/// Which weights of the head are kept.
pub trait Sparsity: Step {
    /// What the mask rests on beyond the mean activation.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Whether the mask rests on [`Training::shaped_mean_activation`], so that a shaping must stand before it. It then needs a
    /// bank, whose rows are shaped and averaged.
    fn takes_shaped_mean(&self) -> bool {
        false
    }

    /// The kept weights `[C, D]`.
    ///
    /// # Errors
    /// Where the statistics lack what [`Sparsity::needs`] says, and where no weight would be kept.
    fn mask(&self, on: &Training<'_>) -> Result<Mask>;

    /// The fraction dropped, where masks nest as it grows.
    fn level(&self) -> Option<f64> {
        None
    }
}

/// One number for an input; higher = more in-distribution.
pub trait Score: Step {
    /// What it reads of each input.
    fn takes(&self) -> Takes;

    /// Whether scores depend on the weights of the head. Those that do not are to be had of features alone: see
    /// [`Spec::takes_head`](crate::Spec::takes_head). What rests on its predictions says so by its needs.
    fn takes_head(&self) -> bool {
        true
    }

    /// What the fit rests on.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Fits to training features.
    ///
    /// # Errors
    /// Where the statistics lack what [`Score::needs`] says, or cannot support the parameters.
    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>>;

    /// Reads what [`Scorer::save`] wrote.
    ///
    /// # Errors
    /// Where tensors are missing, of another shape, or not what a fit can give.
    fn load(&self, state: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>>;
}

/// A fitted [`Score`].
pub trait Scorer: Debug + Send + Sync {
    /// Scores `rows` into `out` `[n]`; an input's score depends on that input alone.
    fn score(&self, rows: &Rows<'_>, workspace: &mut Workspace, out: &mut [f64]);

    /// Inputs that are better scored together, where something large is read once for all of them.
    fn task(&self) -> usize {
        1
    }

    /// Puts what was fitted.
    fn save(&self, _to: &mut State) {}

    /// The score as operators: what ONNX export writes and tests evaluate as the reference. `None` where there is no
    /// such expression.
    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire>;
}

/// What an expressed score reads.
#[derive(Debug, Clone, Copy)]
pub struct Views {
    /// The features `[N, D]` as the network makes them.
    pub features: Wire,
    /// The logits `[N, C]` of the shaped features and the kept weights.
    pub logits: Wire,
}

/// One score of several.
pub trait Combination: Step {
    /// Fits to what each member scores the reference inputs.
    ///
    /// # Errors
    /// Where these scores cannot support the parameters.
    fn fit(&self, members: &[Member<'_>]) -> Result<Arc<dyn Combiner>>;
}

/// A member of a combination, and what it makes of the reference inputs.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// As it prints.
    pub name: &'a str,
    /// Its scores of the reference inputs, which make p-values of scores.
    pub reference: &'a Arc<Calibration>,
    /// What the combination multiplies its vote by.
    pub weight: f64,
}

/// A fitted [`Combination`].
pub trait Combiner: Debug + Send + Sync {
    /// The combined score of one input, from that of each member; higher = more in-distribution.
    fn combine(&self, scores: &[f64]) -> f64;

    /// What each member says of one input of these scores: the terms of which the combined score is the sum, or of which it is the
    /// smallest. The lower, the more a member speaks against the input.
    fn votes(&self, scores: &[f64]) -> Vec<f64>;

    /// The same as operators, from each member's score `[N, 1]`. `None` where there is no such expression.
    fn express(&self, graph: &mut Graph, scores: &[Wire]) -> Option<Wire>;
}

/// A line of [`METHODS`].
#[derive(Debug)]
pub struct Entry {
    /// What the method says of itself.
    pub card: &'static Card,
    pub(crate) make: Make,
}

/// How a method is made of its arguments, by what kind of step it is.
#[derive(Debug)]
pub(crate) enum Make {
    Shaping(fn(&Arguments) -> std::result::Result<Arc<dyn Shaping>, String>),
    Sparsity(fn(&Arguments) -> std::result::Result<Arc<dyn Sparsity>, String>),
    Score(fn(&Arguments) -> std::result::Result<Arc<dyn Score>, String>),
    Combination(fn(&Arguments) -> std::result::Result<Arc<dyn Combination>, String>),
}

impl Entry {
    /// The method called `name`.
    pub fn find(name: &str) -> Option<&'static Self> {
        METHODS.iter().find(|entry| entry.card.name == name)
    }

    /// What a fit of it rests on beyond the mean activation, with the parameters of its example; nothing for a combination,
    /// whose members need what they need.
    pub fn needs(&self) -> Needs {
        let given = self.card.example_arguments();
        match &self.make {
            Make::Shaping(make) => make(&given).map(|step| step.needs()).unwrap_or_default(),
            Make::Sparsity(make) => make(&given).map(|step| step.needs()).unwrap_or_default(),
            Make::Score(make) => make(&given).map(|step| step.needs()).unwrap_or_default(),
            Make::Combination(_) => Needs::default(),
        }
    }

    /// What kind of step it is: `shaping`, `sparsity`, `score` or `combination`.
    pub fn role(&self) -> &'static str {
        match self.make {
            Make::Shaping(_) => "shaping",
            Make::Sparsity(_) => "sparsity",
            Make::Score(_) => "score",
            Make::Combination(_) => "combination",
        }
    }
}

const fn shaping<M: Method + Shaping>() -> Entry {
    Entry { card: M::CARD, make: Make::Shaping(|given| Ok(Arc::new(M::from_arguments(given)?))) }
}

const fn sparsity<M: Method + Sparsity>() -> Entry {
    Entry { card: M::CARD, make: Make::Sparsity(|given| Ok(Arc::new(M::from_arguments(given)?))) }
}

const fn score<M: Method + Score>() -> Entry {
    Entry { card: M::CARD, make: Make::Score(|given| Ok(Arc::new(M::from_arguments(given)?))) }
}

const fn combination<M: Method + Combination>() -> Entry {
    Entry { card: M::CARD, make: Make::Combination(|given| Ok(Arc::new(M::from_arguments(given)?))) }
}

#[cfg(test)]
mod laws;
