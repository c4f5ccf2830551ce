//! Nearest-neighbour guidance: the energy, by how near and how sure training features are.

use std::sync::Arc;

use super::energy::energy_of;
use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card, Kind, Otherwise, Parameter, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Binary, Graph, Reduce, Wire};
use crate::head::LinearHead;
use crate::kernel::Product;
use crate::nearest::Nearest;
use crate::sphere::to_sphere;
use crate::state::{State, check_finite};
use crate::statistics::Needs;
use crate::training::Training;
use crate::views::{LogitSummary, Rows, Takes, Workspace};

/// `nnguide`, `nnguide(10, alpha=0.1)`. The authors' code has K = 10, OpenOOD's K = 100. Both take the first batches of training
/// rows where this takes a uniform sample, and add 1e-10 to every coordinate of the sphere.
#[derive(Debug, Clone, Copy)]
pub(super) struct NnGuide {
    k: usize,
    alpha: f64,
    bank: usize,
}

impl Method for NnGuide {
    const CARD: &'static Card = &Card {
        name: "nnguide",
        about: "the energy times the mean similarity to the nearest of some training features, each times its energy",
        formula: "E(h) mean of the K largest E(h_i) cos(h, h_i), E = logsumexp f",
        paper: "Park, Jung and Teoh, ICCV",
        year: 2023,
        cost: "alpha N D an input; these rows and their energies are kept",
        exports: true,
        example: "nnguide(10, alpha=0.2)",
        parameters: &[
            Parameter {
                name: "k",
                about: "K, how many neighbours",
                kind: Kind::Whole { least: 1, most: 1 << 20 },
                otherwise: Otherwise::Default(Value::Whole(100)),
                bare: true,
            },
            Parameter {
                name: "alpha",
                about: "fraction of training rows that are looked at",
                kind: Kind::Quantile,
                otherwise: Otherwise::Default(Value::Real(0.01)),
                bare: false,
            },
            Parameter::BANK,
        ],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        let whole = |name| given.whole(name) as usize;
        Ok(Self { k: whole("k"), alpha: given.real("alpha"), bank: whole("bank") })
    }

    fn arguments(&self) -> Arguments {
        let whole = |value: usize| Some(Value::Whole(value as u64));
        Arguments::new(Self::CARD, [whole(self.k), Some(Value::Real(self.alpha)), whole(self.bank)])
    }
}

impl Score for NnGuide {
    fn takes(&self) -> Takes {
        Takes::summary(1.0).and(Takes::FEATURES)
    }

    fn needs(&self) -> Needs {
        Needs::bank(self.bank)
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        let share = (self.alpha * on.statistics().rows() as f64).ceil() as usize;
        let bank = on.statistics().bank()?.first(share.min(self.bank));
        let mut energies = Vec::with_capacity(bank.counts.len());
        on.visit_bank(&bank, |_, _, logits| {
            let logits = logits.chunks_exact(on.head().classes());
            energies.extend(logits.map(|row| LogitSummary::of(row).energy(1.0) as f32));
        })?;
        Ok(Arc::new(Guides::new(self.k, bank.features, bank.counts, energies.into())?))
    }

    fn load(&self, state: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        let (shape, bank) = state.take_shaped::<f32>("bank", &[None, Some(head.units())])?;
        let counts = state.take::<u64>("counts", &[Some(shape[0])])?;
        let energies = state.take::<f32>("energies", &[Some(shape[0])])?;
        check_finite("bank", &bank)?;
        check_finite("energies", &energies)?;
        Ok(Arc::new(Guides::new(self.k, bank, counts, energies)?))
    }
}

#[derive(Debug)]
struct Guides {
    k: usize,
    /// `[M, D]`, as the statistics hold it.
    bank: Arc<[f32]>,
    /// How often each row was seen.
    counts: Arc<[u64]>,
    /// The energy of each.
    energies: Arc<[f32]>,
    /// By the normalised rows, each times its energy.
    product: Product,
}

impl Guides {
    fn new(k: usize, bank: Arc<[f32]>, counts: Arc<[u64]>, energies: Arc<[f32]>) -> Result<Self> {
        let rows = counts.iter().fold(0u64, |rows, count| rows.saturating_add(*count));
        if rows < k as u64 {
            return Err(Error::new(ErrorKind::Argument, format!("{rows} training rows"))
                .tensor("bank of `nnguide`")
                .expected(format!("at least {k}, for the mean of so many neighbours"))
                .fix("take fewer neighbours or a larger alpha"));
        }
        let units = bank.len() / counts.len();
        let product = Product::new(&scaled(&bank, &energies), [counts.len(), units], None)?;
        Ok(Self { k, bank, counts, energies, product })
    }
}

/// The rows on the unit sphere, each times its energy.
fn scaled(bank: &[f32], energies: &[f32]) -> Vec<f32> {
    let mut scaled = bank.to_vec();
    for (row, energy) in scaled.chunks_exact_mut(bank.len() / energies.len()).zip(energies) {
        to_sphere(row);
        row.iter_mut().for_each(|value| *value *= energy);
    }
    scaled
}

impl Scorer for Guides {
    fn score(&self, rows: &Rows<'_>, workspace: &mut Workspace, out: &mut [f64]) {
        let Workspace { scratch, rows: queries, .. } = workspace;
        queries.clear();
        queries.extend_from_slice(rows.all_features());
        queries.chunks_exact_mut(rows.units).for_each(to_sphere);
        let nearest = Nearest::of(&self.product, queries, &self.counts, self.k, scratch);
        for ((out, nearest), summary) in out.iter_mut().zip(nearest).zip(rows.summaries()) {
            *out = summary.energy(1.0) * nearest.mean();
        }
    }

    fn task(&self) -> usize {
        self.product.task()
    }

    fn save(&self, to: &mut State) {
        let count = self.counts.len();
        to.put("bank", &[count, self.bank.len() / count], Arc::clone(&self.bank));
        to.put("counts", &[count], Arc::clone(&self.counts));
        to.put("energies", &[count], Arc::clone(&self.energies));
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let units = self.bank.len() / self.counts.len();
        let scaled = scaled(&self.bank, &self.energies);
        // A row that was seen often stands as often as could matter.
        let repeated: Vec<f32> = scaled
            .chunks_exact(units)
            .zip(&*self.counts)
            .flat_map(|(row, count)| std::iter::repeat_n(row, (*count).min(self.k as u64) as usize).flatten().copied())
            .collect();
        let query = graph.to_sphere(of.features);
        let values = graph.times(query, [repeated.len() / units, units], repeated);
        // The k largest: what is at least the k-th, less what more of that value there is.
        let least = graph.reduce(Reduce::KthLargest(self.k), values);
        let above = graph.sub(values, least);
        let zero = graph.scalar(0.0);
        let above = graph.binary(Binary::Max, above, zero);
        let sum = graph.sum(above);
        let mean = graph.scale(sum, 1.0 / self.k as f64);
        let mean = graph.add(mean, least);
        let energy = energy_of(graph, of.logits, 1.0);
        Some(graph.mul(energy, mean))
    }
}
