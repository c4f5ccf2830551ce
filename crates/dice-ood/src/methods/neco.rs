//! NECO: how much of a standardised feature lies in the first principal components.

use std::sync::Arc;

use ndarray::Array2;

use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card, Kind, Otherwise, Parameter, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::gaussian::CONSTANT;
use crate::graph::{Binary, Graph, Reduce, Wire};
use crate::head::LinearHead;
use crate::kernel::Product;
use crate::linalg::Axes;
use crate::sphere::norm;
use crate::state::{State, check_finite};
use crate::statistics::{Need, Needs, Space, Statistics};
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `neco`, `neco(100)`. Units that are constant on training rows are centred and not scaled, as in scikit-learn. The authors
/// leave the logit out for ResNets, and the standardisation of `|s|` for DeiT and Swin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Neco {
    dim: Option<u64>,
}

impl Method for Neco {
    const CARD: &'static Card = &Card {
        name: "neco",
        about: "the share of a standardised feature in the first principal components, times the largest logit",
        formula: "|P' s| / |s| max_c f_c, s = (h - mean) / sd by unit, P the first dim axes of training rows' s",
        paper: "Ammar et al., ICLR",
        year: 2024,
        cost: "D dim an input; the fit takes D^3; P is kept",
        exports: true,
        example: "neco(50)",
        parameters: &[Parameter {
            name: "dim",
            about: "principal components; by default 100, and half of the units where these are fewer than 200",
            kind: Kind::Whole { least: 1, most: 1 << 16 },
            otherwise: Otherwise::Absent,
            bare: true,
        }],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        match given.get("dim") {
            Some(Value::Whole(dim)) => Ok(Self { dim: Some(dim) }),
            _ => Ok(Self { dim: None }),
        }
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [self.dim.map(Value::Whole)])
    }
}

impl Neco {
    fn dim(&self, units: usize) -> Result<usize> {
        let dim = self.dim.map_or_else(|| 100.min(units.div_ceil(2)), |dim| dim as usize);
        if dim <= units {
            return Ok(dim);
        }
        Err(Error::new(ErrorKind::Argument, format!("{dim} of {units}"))
            .argument("principal components of `neco`")
            .expected(format!("at most the {units} units of the features")))
    }
}

impl Score for Neco {
    fn takes(&self) -> Takes {
        Takes::summary(1.0).and(Takes::FEATURES)
    }

    fn needs(&self) -> Needs {
        Needs::of([Need::SecondMoment(Space::Features)])
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        let units = on.head().units();
        let dim = self.dim(units)?;
        let (inverse, correlation) = standardised(on.statistics())?;
        let axes = Axes::of(&correlation)?;
        let axes = axes.vectors.slice(ndarray::s![..dim, ..]).iter().map(|part| *part as f32).collect();
        let mean = on.statistics().mean_activation().iter().map(|mean| *mean as f32).collect();
        Ok(Arc::new(Share::new(mean, inverse.iter().map(|value| *value as f32).collect(), axes)?))
    }

    fn load(&self, state: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        let units = head.units();
        let mean = state.take::<f32>("mean", &[Some(units)])?;
        let inverse = state.take::<f32>("inverse", &[Some(units)])?;
        let axes = state.take::<f32>("axes", &[Some(self.dim(units)?), Some(units)])?;
        for (name, values) in [("mean", &mean), ("inverse", &inverse), ("axes", &axes)] {
            check_finite(name, values)?;
        }
        Ok(Arc::new(Share::new(mean, inverse, axes)?))
    }
}

/// `1 / sd` of each unit `[D]`, and the correlation of units `[D, D]`.
fn standardised(statistics: &Statistics) -> Result<(Vec<f64>, Array2<f64>)> {
    let (mean, rows) = (statistics.mean_activation(), statistics.rows().max(1) as f64);
    let moment = statistics.second_moment(Space::Features)?;
    let covariance = |i: usize, j: usize| moment[(i, j)] / rows - mean[i] * mean[j];
    let inverse: Vec<f64> = (0..mean.len())
        .map(|unit| match covariance(unit, unit) {
            variance if variance > CONSTANT * moment[(unit, unit)] / rows => variance.sqrt().recip(),
            _ => 1.0,
        })
        .collect();
    let correlation = Array2::from_shape_fn(moment.dim(), |(i, j)| covariance(i, j) * inverse[i] * inverse[j]);
    Ok((inverse, correlation))
}

#[derive(Debug)]
struct Share {
    /// `[D]`.
    mean: Arc<[f32]>,
    /// `1 / sd` `[D]`.
    inverse: Arc<[f32]>,
    /// `[dim, D]`.
    axes: Arc<[f32]>,
    product: Product,
}

impl Share {
    fn new(mean: Arc<[f32]>, inverse: Arc<[f32]>, axes: Arc<[f32]>) -> Result<Self> {
        let product = Product::new(&axes, [axes.len() / mean.len(), mean.len()], None)?;
        Ok(Self { mean, inverse, axes, product })
    }

    fn dim(&self) -> usize {
        self.product.outputs()
    }
}

impl Scorer for Share {
    fn score(&self, rows: &Rows<'_>, workspace: &mut Workspace, out: &mut [f64]) {
        let Workspace { scratch, rows: standardised, products, .. } = workspace;
        standardised.clear();
        for row in rows.features() {
            let units = row.iter().zip(&*self.mean).zip(&*self.inverse);
            standardised.extend(units.map(|((value, mean), inverse)| (value - mean) * inverse));
        }
        products.clear();
        products.resize(out.len() * self.dim(), 0.0);
        let _ = self.product.multiply(standardised, scratch, products);
        let parts = products.chunks_exact(self.dim()).zip(standardised.chunks_exact(rows.units));
        for ((out, summary), (inside, all)) in out.iter_mut().zip(rows.summaries()).zip(parts) {
            *out = norm(inside) / norm(all).max(f64::from(f32::MIN_POSITIVE)) * summary.max;
        }
    }

    fn save(&self, to: &mut State) {
        let units = self.mean.len();
        to.put("mean", &[units], Arc::clone(&self.mean));
        to.put("inverse", &[units], Arc::clone(&self.inverse));
        to.put("axes", &[self.dim(), units], Arc::clone(&self.axes));
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let (mean, inverse) = (graph.row(self.mean.iter().copied()), graph.row(self.inverse.iter().copied()));
        let centred = graph.sub(of.features, mean);
        let standardised = graph.mul(centred, inverse);
        let inside = graph.times(standardised, [self.dim(), self.mean.len()], Arc::clone(&self.axes));
        let (inside, all) = (graph.norm(inside), graph.norm(standardised));
        let least = graph.scalar(f64::from(f32::MIN_POSITIVE));
        let all = graph.binary(Binary::Max, all, least);
        let share = graph.div(inside, all);
        let most = graph.reduce(Reduce::Max, of.logits);
        Some(graph.mul(share, most))
    }
}
