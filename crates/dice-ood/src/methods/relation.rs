//! Neural relation graph: how many training features are like an input and predicted alike.

use std::sync::Arc;

use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card, Kind, Otherwise, Parameter, Value};
use crate::error::Result;
use crate::graph::{Binary, Graph, Op, Wire};
use crate::head::LinearHead;
use crate::kernel::Product;
use crate::sphere::to_sphere;
use crate::state::{State, check_finite};
use crate::statistics::Needs;
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `relation`, `relation(2)`. The authors and OpenOOD relate an input to all training rows, this to a uniform sample.
#[derive(Debug, Clone, Copy)]
pub(super) struct Relation {
    power: f64,
    bank: usize,
}

/// Weaker edges do not count.
const EDGE: f32 = 0.03;
/// Rows of the bank whose edges are in memory together.
const PART: usize = 1024;

impl Method for Relation {
    const CARD: &'static Card = &Card {
        name: "relation",
        about: "the sum of edges to training features that are like an input and predicted alike",
        formula: "sum_i e_i^power over edges e_i = max(cos(h, h_i), 0) P'P_i > 0.03",
        paper: "Kim, Lee and Song, NeurIPS, neural relation graph",
        year: 2023,
        cost: "bank x (D + C) an input; the bank and its softmax are kept",
        exports: true,
        example: "relation",
        parameters: &[
            Parameter {
                name: "power",
                about: "what edges are raised to",
                kind: Kind::Real { least: 0.1, most: 64.0 },
                otherwise: Otherwise::Default(Value::Real(1.0)),
                bare: true,
            },
            Parameter::BANK,
        ],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self { power: given.real("power"), bank: given.whole("bank") as usize })
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [Some(Value::Real(self.power)), Some(Value::Whole(self.bank as u64))])
    }
}

impl Score for Relation {
    fn takes(&self) -> Takes {
        Takes::LOGITS.and(Takes::FEATURES)
    }

    fn needs(&self) -> Needs {
        Needs::bank(self.bank)
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        let bank = on.statistics().bank()?.first(self.bank);
        let mut softmax = Vec::with_capacity(bank.counts.len() * on.head().classes());
        on.visit_bank(&bank, |_, _, logits| {
            logits.chunks_exact(on.head().classes()).for_each(|row| softmax_of(row, &mut softmax));
        })?;
        Ok(Arc::new(Relations::new(self.power, bank.features, bank.counts, softmax.into())?))
    }

    fn load(&self, state: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        let (shape, bank) = state.take_shaped::<f32>("bank", &[None, Some(head.units())])?;
        let counts = state.take::<u64>("counts", &[Some(shape[0])])?;
        let softmax = state.take::<f32>("softmax", &[Some(shape[0]), Some(head.classes())])?;
        check_finite("bank", &bank)?;
        check_finite("softmax", &softmax)?;
        Ok(Arc::new(Relations::new(self.power, bank, counts, softmax)?))
    }
}

/// Adds the softmax of `logits` `[C]` to `out`.
fn softmax_of(logits: &[f32], out: &mut Vec<f32>) {
    let most = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let exp = |logit: &f32| (f64::from(*logit) - most).exp();
    let sum: f64 = logits.iter().map(exp).sum();
    out.extend(logits.iter().map(|logit| (exp(logit) / sum) as f32));
}

#[derive(Debug)]
struct Relations {
    power: f64,
    /// `[M, D]`, as the statistics hold it.
    bank: Arc<[f32]>,
    /// How often each row was seen.
    counts: Arc<[u64]>,
    /// `[M, C]`.
    softmax: Arc<[f32]>,
    /// By the normalised rows and by their softmax, a part of the bank each.
    parts: Vec<[Product; 2]>,
}

impl Relations {
    fn new(power: f64, bank: Arc<[f32]>, counts: Arc<[u64]>, softmax: Arc<[f32]>) -> Result<Self> {
        let count = counts.len().max(1);
        let (units, classes) = (bank.len() / count, softmax.len() / count);
        let sphere = on_sphere(&bank, units);
        let parts = sphere.chunks(PART * units).zip(softmax.chunks(PART * classes)).map(|(rows, softmax)| {
            let count = rows.len() / units;
            Ok([Product::new(rows, [count, units], None)?, Product::new(softmax, [count, classes], None)?])
        });
        let parts = parts.collect::<Result<_>>()?;
        Ok(Self { power, bank, counts, softmax, parts })
    }
}

fn on_sphere(rows: &[f32], units: usize) -> Vec<f32> {
    let mut sphere = rows.to_vec();
    sphere.chunks_exact_mut(units).for_each(to_sphere);
    sphere
}

impl Scorer for Relations {
    fn score(&self, rows: &Rows<'_>, workspace: &mut Workspace, out: &mut [f64]) {
        let Workspace { scratch, rows: alike, products: edges, .. } = workspace;
        let queries = on_sphere(rows.all_features(), rows.units);
        let mut softmax = Vec::new();
        rows.logits().for_each(|logits| softmax_of(logits, &mut softmax));
        out.fill(0.0);
        for ([similar, same], counts) in self.parts.iter().zip(self.counts.chunks(PART)) {
            for (values, product, of) in [(&mut *edges, similar, &queries), (&mut *alike, same, &softmax)] {
                values.clear();
                values.resize(rows.len() * counts.len(), 0.0);
                let _ = product.multiply(of, scratch, values);
            }
            let by_row = edges.chunks_exact(counts.len()).zip(alike.chunks_exact(counts.len()));
            for (out, (similar, same)) in out.iter_mut().zip(by_row) {
                for ((similar, same), count) in similar.iter().zip(same).zip(counts) {
                    let edge = similar.max(0.0) * same;
                    if edge > EDGE {
                        let power = if self.power == 1.0 { f64::from(edge) } else { f64::from(edge).powf(self.power) };
                        *out += *count as f64 * power;
                    }
                }
            }
        }
    }

    fn save(&self, to: &mut State) {
        let count = self.counts.len();
        to.put("bank", &[count, self.bank.len() / count], Arc::clone(&self.bank));
        to.put("counts", &[count], Arc::clone(&self.counts));
        to.put("softmax", &[count, self.softmax.len() / count], Arc::clone(&self.softmax));
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let count = self.counts.len();
        let (units, classes) = (self.bank.len() / count, self.softmax.len() / count);
        let query = graph.to_sphere(of.features);
        let cosines = graph.times(query, [count, units], on_sphere(&self.bank, units));
        let softmax = graph.push(Op::Softmax(of.logits));
        let same = graph.times(softmax, [count, classes], Arc::clone(&self.softmax));
        let zero = graph.scalar(0.0);
        let similar = graph.binary(Binary::Max, cosines, zero);
        let edges = graph.mul(similar, same);
        let (least, power) = (graph.scalar(f64::from(EDGE)), graph.scalar(self.power));
        let counted = graph.binary(Binary::Greater, edges, least);
        let powers = graph.binary(Binary::Pow, edges, power);
        let counted = graph.mul(counted, powers);
        let counts = graph.row(self.counts.iter().map(|count| *count as f32));
        let terms = graph.mul(counted, counts);
        Some(graph.sum(terms))
    }
}
