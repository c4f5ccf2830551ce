//! Virtual-logit matching: the energy less a logit made of what lies outside the principal subspace.

use std::sync::Arc;

use ndarray::Array1;

use super::energy::energy_of;
use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card, Kind, Otherwise, Parameter, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Graph, Wire};
use crate::head::LinearHead;
use crate::kernel::{Product, Scratch};
use crate::sphere::norm;
use crate::state::{State, check_finite};
use crate::statistics::{BankRows, Need, Needs, Space};
use crate::training::{About, Training};
use crate::views::{Rows, Takes, Workspace};

/// `vim`, `vim(256)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vim {
    dim: Dimensions,
}

/// Training rows that the scale of the virtual logit rests on, at most.
const ROWS: usize = 50_000;

impl Method for Vim {
    const CARD: &'static Card = &Card {
        name: "vim",
        about: "energy less a virtual logit: the part of a feature outside the principal subspace",
        formula: "logsumexp f - alpha |R (h - u)|, u = -pinv(W) b, R the axes after the first dim, \
                  alpha = sum max f / sum |R (h - u)| over training rows",
        paper: "Wang et al., CVPR, equations 5 to 7",
        year: 2022,
        cost: "D (D - dim) an input; the fit takes D^3; R is kept",
        exports: true,
        example: "vim(256)",
        parameters: &[Dimensions::PARAMETER],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self { dim: Dimensions::from_arguments(given) })
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [self.dim.value()])
    }
}

/// Dimensions of the principal subspace, where they are given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dimensions(Option<u64>);

impl Dimensions {
    pub(super) const PARAMETER: Parameter = Parameter {
        name: "dim",
        about: "dimensions of the principal subspace; by default 1000 of at least 2048 units, 512 of at least 768, else half",
        kind: Kind::Whole { least: 1, most: 1 << 16 },
        otherwise: Otherwise::Absent,
        bare: true,
    };

    pub(super) fn from_arguments(given: &Arguments) -> Self {
        match given.get("dim") {
            Some(Value::Whole(dim)) => Self(Some(dim)),
            _ => Self(None),
        }
    }

    pub(super) fn value(self) -> Option<Value> {
        self.0.map(Value::Whole)
    }

    /// The authors' choice where none is given.
    fn of(self, units: usize) -> Result<usize> {
        let dim = match (self.0, units) {
            (Some(dim), _) => dim as usize,
            (None, 2048..) => 1000,
            (None, 768..) => 512,
            (None, _) => units / 2,
        };
        if dim < units {
            return Ok(dim);
        }
        Err(Error::new(ErrorKind::Argument, format!("{dim} of {units}"))
            .argument("dimensions of the principal subspace")
            .expected(format!("fewer than the {units} units of the features")))
    }
}

impl Score for Vim {
    fn takes(&self) -> Takes {
        Takes::summary(1.0).and(Takes::FEATURES)
    }

    fn needs(&self) -> Needs {
        Needs::of([Need::SecondMoment(Space::Features)]).and(Needs::bank(ROWS))
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        let outside = Outside::fit(self.dim, on)?;
        let alpha = alpha(on, &outside, &on.statistics().bank()?.first(ROWS))?;
        Ok(Arc::new(VirtualLogit { outside, alpha }))
    }

    fn load(&self, state: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        let outside = Outside::load(self.dim, state, head.units())?;
        let alpha = state.take::<f64>("alpha", &[Some(1)])?;
        check_finite("alpha", &alpha)?;
        Ok(Arc::new(VirtualLogit { outside, alpha: alpha[0] }))
    }
}

/// `sum max f / sum |R (h - u)|` over the rows of `bank`, each as often as it was seen.
fn alpha(on: &Training<'_>, of: &Outside, bank: &BankRows) -> Result<f64> {
    let (mut logits, mut lengths) = (0.0, 0.0);
    on.visit_bank(bank, |rows, counts, found| {
        let (mut products, mut residuals) = (Vec::new(), vec![0.0; counts.len()]);
        of.lengths(rows, &mut Scratch::default(), &mut products, &mut residuals);
        for ((logits_of, length), count) in found.chunks_exact(on.head().classes()).zip(residuals).zip(counts) {
            let most = logits_of.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            logits += *count as f64 * f64::from(most);
            lengths += *count as f64 * length;
        }
    })?;
    let alpha = logits / lengths;
    if alpha.is_finite() {
        return Ok(alpha);
    }
    Err(Error::new(ErrorKind::Argument, "training features without a part outside the principal subspace")
        .tensor("alpha of `vim`")
        .expected("features that span more dimensions")
        .fix("take fewer dimensions"))
}

/// What lies outside the principal subspace of training features about the point that the head maps to nothing.
#[derive(Debug)]
pub(super) struct Outside {
    /// R `[D - dim, D]`.
    residual: Arc<[f32]>,
    /// `-R u` `[D - dim]`.
    offset: Arc<[f32]>,
    product: Product,
}

impl Outside {
    pub(super) fn fit(dim: Dimensions, on: &Training<'_>) -> Result<Self> {
        let units = on.head().units();
        let dim = dim.of(units)?;
        let (axes, centre) = (on.axes(About::HeadOrigin)?, on.centre(About::HeadOrigin)?);
        let outside = axes.vectors.slice(ndarray::s![dim.., ..]);
        let residual: Arc<[f32]> = outside.iter().map(|part| *part as f32).collect();
        let offset: Array1<f64> = -outside.dot(&centre);
        Self::new(residual, offset.iter().map(|part| *part as f32).collect(), units)
    }

    fn new(residual: Arc<[f32]>, offset: Arc<[f32]>, units: usize) -> Result<Self> {
        let product = Product::new(&residual, [offset.len(), units], Some(&offset))?;
        Ok(Self { residual, offset, product })
    }

    pub(super) fn load(dim: Dimensions, state: &mut State, units: usize) -> Result<Self> {
        let outside = units - dim.of(units)?;
        let residual = state.take::<f32>("residual", &[Some(outside), Some(units)])?;
        let offset = state.take::<f32>("offset", &[Some(outside)])?;
        check_finite("residual", &residual)?;
        check_finite("offset", &offset)?;
        Self::new(residual, offset, units)
    }

    pub(super) fn save(&self, to: &mut State) {
        let outside = self.offset.len();
        to.put("residual", &[outside, self.residual.len() / outside], Arc::clone(&self.residual));
        to.put("offset", &[outside], Arc::clone(&self.offset));
    }

    /// `|R (h - u)|` `[N, 1]` as operators.
    pub(super) fn express(&self, graph: &mut Graph, features: Wire) -> Wire {
        let outside = self.offset.len();
        let products = graph.times(features, [outside, self.residual.len() / outside], Arc::clone(&self.residual));
        let offset = graph.row(self.offset.iter().copied());
        let shifted = graph.add(products, offset);
        graph.norm(shifted)
    }

    /// `|R (h - u)|` of each row.
    pub(super) fn lengths(&self, rows: &[f32], scratch: &mut Scratch, products: &mut Vec<f32>, out: &mut [f64]) {
        let outside = self.offset.len();
        products.clear();
        products.resize(out.len() * outside, 0.0);
        let _ = self.product.multiply(rows, scratch, products);
        for (length, row) in out.iter_mut().zip(products.chunks_exact(outside)) {
            *length = norm(row);
        }
    }
}

#[derive(Debug)]
struct VirtualLogit {
    outside: Outside,
    alpha: f64,
}

impl Scorer for VirtualLogit {
    fn score(&self, rows: &Rows<'_>, workspace: &mut Workspace, out: &mut [f64]) {
        self.outside.lengths(rows.all_features(), &mut workspace.scratch, &mut workspace.products, out);
        for (score, summary) in out.iter_mut().zip(rows.summaries()) {
            *score = summary.energy(1.0) - self.alpha * *score;
        }
    }

    fn save(&self, to: &mut State) {
        self.outside.save(to);
        to.put("alpha", &[1], vec![self.alpha]);
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let length = self.outside.express(graph, of.features);
        let (scaled, energy) = (graph.scale(length, self.alpha), energy_of(graph, of.logits, 1.0));
        Some(graph.sub(energy, scaled))
    }
}
