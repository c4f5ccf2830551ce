//! Mahalanobis distance to the nearest class mean.

use std::sync::Arc;

use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card, Parameter, Value};
use crate::error::{Error, Missing, Result};
use crate::gaussian::{Centres, SHRINK, Shrinkage, Whitening, covariance, square, together};
use crate::graph::{Graph, Wire};
use crate::head::LinearHead;
use crate::sphere::to_sphere;
use crate::state::State;
use crate::statistics::{By, Need, Needs, Space};
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `mds`, `mds(by=prediction)`, `mds(shrinkage=none)`. OpenOOD's and the paper's are `shrinkage=none`; pytorch-ood 0.4 halves the
/// distance, does not divide the covariance by N, and adds 1e-6 to its diagonal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mds(Mahalanobis);

impl Method for Mds {
    const CARD: &'static Card = &Card {
        name: "mds",
        about: "Mahalanobis distance to the nearest class mean, the covariance that of all classes together",
        formula: "max_c -(h - mu_c)' Sigma^-1 (h - mu_c), Sigma = E[h h'] - sum_c n_c / N mu_c mu_c'",
        paper: "Lee et al., NeurIPS, the score of the last layer",
        year: 2018,
        cost: "D (D + C) an input; the fit takes D^3; a [D, D] whitening and C means are kept",
        exports: true,
        example: "mds",
        parameters: Mahalanobis::PARAMETERS,
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self(Mahalanobis::from_arguments(given, Space::Features, false)))
    }

    fn arguments(&self) -> Arguments {
        self.0.arguments(Self::CARD)
    }
}

impl Score for Mds {
    fn takes(&self) -> Takes {
        Takes::FEATURES
    }

    fn takes_head(&self) -> bool {
        false
    }

    fn needs(&self) -> Needs {
        self.0.needs()
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        self.0.fit(on)
    }

    fn load(&self, state: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        self.0.load(state, head)
    }
}

/// What the four methods of this kind have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mahalanobis {
    by: By,
    shrinkage: Shrinkage,
    space: Space,
    /// Whether the distance to the mean of all rows is taken off.
    relative: bool,
}

impl Mahalanobis {
    pub(super) const PARAMETERS: &'static [Parameter] = &[Parameter::BY, Parameter::SHRINKAGE];

    pub(super) fn from_arguments(given: &Arguments, space: Space, relative: bool) -> Self {
        let shrinkage = Shrinkage::of_word(given.choice("shrinkage"));
        Self { by: By::of_word(given.choice("by")), shrinkage, space, relative }
    }

    pub(super) fn arguments(&self, card: &'static Card) -> Arguments {
        Arguments::new(card, [self.by.word(), self.shrinkage.word()].map(|word| Some(Value::Choice(word))))
    }

    pub(super) fn needs(&self) -> Needs {
        Needs::of([Need::Classes(self.by, self.space), Need::SecondMoment(self.space)])
    }

    pub(super) fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        let classes = on.class_means(self.by, self.space)?;
        if self.relative && classes.len() < 2 {
            return Err(one_class());
        }
        let moment = on.statistics().second_moment(self.space)?;
        let all = together(&classes);
        let tied = covariance(&moment, &classes, self.shrinkage)?;
        let whitening = Whitening::of(&tied, &all.mean).map_err(|error| error.fix(SHRINK))?;
        let centres = whitening.centres(&classes)?;
        let background = || {
            let whole = covariance(&moment, std::slice::from_ref(&all), self.shrinkage)?;
            Whitening::of(&whole, &all.mean).map_err(|error| error.fix(SHRINK))
        };
        let background = self.relative.then(background).transpose()?;
        Ok(Arc::new(Distances { space: self.space, whitening, centres, background }))
    }

    pub(super) fn load(&self, state: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        let (whitening, centres) = (Whitening::load(state, head.units())?, Centres::load(state, head.units())?);
        let background = || {
            let mut part = state.take_part("background");
            let whitening = Whitening::load(&mut part, head.units())?;
            part.finish().map(|()| whitening)
        };
        let background = self.relative.then(background).transpose()?;
        Ok(Arc::new(Distances { space: self.space, whitening, centres, background }))
    }
}

/// Relative to itself, every row is at distance 0.
fn one_class() -> Error {
    Error::lacking(Missing::Labels, "one class")
        .tensor("labels")
        .expected("two classes or more, each of which is compared with all rows")
}

#[derive(Debug)]
struct Distances {
    space: Space,
    whitening: Whitening,
    /// The class means.
    centres: Centres,
    /// Whitens by the covariance of all rows about their mean.
    background: Option<Whitening>,
}

impl Scorer for Distances {
    fn score(&self, rows: &Rows<'_>, workspace: &mut Workspace, out: &mut [f64]) {
        let Workspace { scratch, rows: sphere, products, .. } = workspace;
        let features = match self.space {
            Space::Features => rows.all_features(),
            Space::Sphere => {
                sphere.clear();
                sphere.extend_from_slice(rows.all_features());
                sphere.chunks_exact_mut(rows.units).for_each(to_sphere);
                sphere
            }
        };
        self.whitening.apply(features, scratch, products, out);
        self.centres.nearest(products, scratch, out);
        if let Some(background) = &self.background {
            let mut distances = vec![0.0; out.len()];
            background.apply(features, scratch, products, &mut distances);
            out.iter_mut().zip(distances).for_each(|(out, distance)| *out += distance);
        }
    }

    fn save(&self, to: &mut State) {
        self.whitening.save(to);
        self.centres.save(to);
        if let Some(background) = &self.background {
            let mut part = State::default();
            background.save(&mut part);
            to.put_part("background", part);
        }
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let features = match self.space {
            Space::Features => of.features,
            Space::Sphere => graph.to_sphere(of.features),
        };
        let whitened = self.whitening.express(graph, features);
        let nearest = self.centres.express_nearest(graph, whitened);
        let Some(background) = &self.background else { return Some(nearest) };
        let whitened = background.express(graph, features);
        let distance = square(graph, whitened);
        Some(graph.add(nearest, distance))
    }
}
