//! Deep nearest neighbours: how far the k-th nearest training feature is, on the unit sphere.

use std::sync::Arc;

use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card, Kind, Otherwise, Parameter, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Graph, Reduce, Wire};
use crate::head::LinearHead;
use crate::kernel::Product;
use crate::nearest::Nearest;
use crate::sphere::{norm, to_sphere};
use crate::state::State;
use crate::statistics::Needs;
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `knn(50)`, `knn(50, bank=100000)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Knn {
    k: usize,
    bank: usize,
}

impl Method for Knn {
    const CARD: &'static Card = &Card {
        name: "knn",
        about: "distance to the k-th nearest training feature, on the unit sphere",
        formula: "-|h' - h'_(k)|^2, h' = h / |h|",
        paper: "Sun et al., ICML",
        year: 2022,
        cost: "bank x D an input; the bank is kept",
        exports: true,
        example: "knn(50)",
        parameters: &[
            Parameter {
                name: "k",
                about: "which neighbour",
                kind: Kind::Whole { least: 1, most: 1 << 20 },
                otherwise: Otherwise::Default(Value::Whole(50)),
                bare: true,
            },
            Parameter::BANK,
        ],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self { k: given.whole("k") as usize, bank: given.whole("bank") as usize })
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [Some(Value::Whole(self.k as u64)), Some(Value::Whole(self.bank as u64))])
    }
}

impl Score for Knn {
    fn takes(&self) -> Takes {
        Takes::FEATURES
    }

    fn takes_head(&self) -> bool {
        false
    }

    fn needs(&self) -> Needs {
        Needs::bank(self.bank)
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        let bank = on.statistics().bank()?.first(self.bank);
        Neighbours::scorer(self.k, bank.features, bank.counts, bank.units)
    }

    fn load(&self, state: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        let (shape, bank) = state.take_shaped::<f32>("bank", &[None, Some(head.units())])?;
        let counts = state.take::<u64>("counts", &[Some(shape[0])])?;
        crate::state::check_finite("bank", &bank)?;
        Neighbours::scorer(self.k, bank, counts, head.units())
    }
}

/// A bank of training features, and how far to look in it.
#[derive(Debug)]
struct Neighbours {
    k: usize,
    units: usize,
    /// As the statistics hold it, `[M, D]`: not normalised.
    bank: Arc<[f32]>,
    /// How often each row was seen.
    counts: Arc<[u64]>,
    /// Gives `q b - |b|^2 / 2` for each normalised row b of the bank, so that `-|q - b|^2` is twice that less `|q|^2`.
    product: Product,
}

impl Neighbours {
    fn scorer(k: usize, bank: Arc<[f32]>, counts: Arc<[u64]>, units: usize) -> Result<Arc<dyn Scorer>> {
        let rows = counts.iter().fold(0u64, |rows, count| rows.saturating_add(*count));
        if rows < k as u64 {
            return Err(Error::new(ErrorKind::Argument, format!("{rows} training rows"))
                .tensor("bank")
                .expected(format!("at least {k}, to look for neighbour {k}")));
        }
        let (sphere, half) = normalised(&bank, units);
        let product = Product::new(&sphere, [counts.len(), units], Some(&half))?;
        Ok(Arc::new(Self { k, units, bank, counts, product }))
    }
}

/// The rows on the unit sphere, and minus half of each one's squared length.
fn normalised(bank: &[f32], units: usize) -> (Vec<f32>, Vec<f32>) {
    let mut sphere = bank.to_vec();
    sphere.chunks_exact_mut(units).for_each(to_sphere);
    let half = sphere.chunks_exact(units).map(|row| (-0.5 * norm(row).powi(2)) as f32).collect();
    (sphere, half)
}

impl Scorer for Neighbours {
    fn score(&self, rows: &Rows<'_>, workspace: &mut Workspace, out: &mut [f64]) {
        let Workspace { scratch, rows: queries, .. } = workspace;
        queries.clear();
        queries.extend_from_slice(rows.all_features());
        queries.chunks_exact_mut(self.units).for_each(to_sphere);
        let nearest = Nearest::of(&self.product, queries, &self.counts, self.k, scratch);
        for ((score, nearest), query) in out.iter_mut().zip(nearest).zip(queries.chunks_exact(self.units)) {
            *score = 2.0 * f64::from(nearest.last()) - norm(query).powi(2);
        }
    }

    fn task(&self) -> usize {
        self.product.task()
    }

    fn save(&self, to: &mut State) {
        to.put("bank", &[self.counts.len(), self.units], Arc::clone(&self.bank));
        to.put("counts", &[self.counts.len()], Arc::clone(&self.counts));
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        // A row that was seen often stands as often as could matter.
        let copies = |count: &u64| (*count).min(self.k as u64) as usize;
        let repeated: Vec<f32> = self
            .bank
            .chunks_exact(self.units)
            .zip(&*self.counts)
            .flat_map(|(row, count)| std::iter::repeat_n(row, copies(count)).flatten().copied())
            .collect();
        let (sphere, half) = normalised(&repeated, self.units);
        let query = graph.to_sphere(of.features);
        let products = graph.times(query, [half.len(), self.units], sphere);
        let half = graph.row(half);
        let values = graph.add(products, half);
        let kth = graph.reduce(Reduce::KthLargest(self.k), values);
        let (twice, squares) = (graph.scale(kth, 2.0), graph.mul(query, query));
        let length = graph.sum(squares);
        Some(graph.sub(twice, length))
    }
}
