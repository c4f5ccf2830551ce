//! Deep nearest neighbours: how far the k-th nearest training feature is, on the unit sphere.

use std::sync::Arc;

use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card, Kind, Otherwise, Parameter, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Graph, Reduce, Wire};
use crate::head::LinearHead;
use crate::io::tensors::element::{f16_of_f32, f32_of_f16};
use crate::kernel::Product;
use crate::nearest::Nearest;
use crate::sphere::{norm, to_sphere};
use crate::state::State;
use crate::statistics::Needs;
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `knn(50)`, `knn(50, bank=100000, precision=half)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Knn {
    k: usize,
    bank: usize,
    precision: &'static str,
}

const PRECISIONS: &[&str] = &["single", "half"];

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
            Parameter {
                name: "precision",
                about: "in which the bank is kept; half takes half the space of a detector file, the products are those of f32",
                kind: Kind::Choice(PRECISIONS),
                otherwise: Otherwise::Default(Value::Choice("single")),
                bare: false,
            },
        ],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        let (k, bank) = (given.whole("k") as usize, given.whole("bank") as usize);
        Ok(Self { k, bank, precision: given.choice("precision") })
    }

    fn arguments(&self) -> Arguments {
        let (k, bank) = (Value::Whole(self.k as u64), Value::Whole(self.bank as u64));
        Arguments::new(Self::CARD, [Some(k), Some(bank), Some(Value::Choice(self.precision))])
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
        let features = if self.precision == "half" { rounded(&bank.features, bank.units)? } else { bank.features };
        Neighbours::scorer(self.k, features, bank.counts, bank.units)
    }

    fn load(&self, state: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        let (shape, bank) = state.take_shaped::<f32>("bank", &[None, Some(head.units())])?;
        let counts = state.take::<u64>("counts", &[Some(shape[0])])?;
        crate::state::check_finite("bank", &bank)?;
        Neighbours::scorer(self.k, bank, counts, head.units())
    }
}

/// The halves nearest to `bank`.
fn rounded(bank: &[f32], units: usize) -> Result<Arc<[f32]>> {
    let halves: Arc<[f32]> = bank.iter().map(|value| f32_of_f16(f16_of_f32(*value))).collect();
    match halves.iter().position(|half| !half.is_finite()) {
        None => Ok(halves),
        Some(at) => Err(Error::new(ErrorKind::Argument, format!("{} of unit {}", bank[at], at % units))
            .argument("precision of `knn`")
            .expected("training features up to 65504, the largest half")
            .fix("keep the bank in single precision")),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bank_of_halves_is_the_nearest_halves() {
        let halves = [0.5, -1.25, 0.0, 6.103_515_6e-5];
        assert_eq!(rounded(&halves, 2).unwrap()[..], halves);
        for value in [0.1f32, 3.3, 1234.5, 65_519.0] {
            let found = rounded(&[value], 1).unwrap()[0];
            assert!((found - value).abs() <= value * 2f32.powi(-11), "{found} for {value}");
        }
        let error = rounded(&[1.0, 2.0, 65_520.0], 2).unwrap_err().to_string();
        assert!(error.contains("unit 0") && error.contains("65504"), "{error}");
    }

    #[test]
    fn precision_changes_the_score_no_more_than_halves_can() {
        let [single, half] = ["knn(3)", "knn(3, precision=half)"].map(|spec| {
            let head = Arc::new(LinearHead::from_rows(vec![1.0, 0.0, 0.0, 1.0], vec![0.0; 2], 2).unwrap());
            let spec: crate::spec::Spec = spec.parse().unwrap();
            let mut statistics = crate::statistics::Statistics::of_head(&head, &spec.needs()).unwrap();
            let row = |row: usize| 0.1 + (row as f32 * 0.37).sin().abs();
            statistics.update(ndarray::Array2::from_shape_fn((40, 2), |(at, unit)| row(2 * at + unit)).view()).unwrap();
            let detector = spec.fit(&head, &statistics).unwrap();
            detector.score(ndarray::array![[0.2f32, 0.9], [1.0, -0.5]].view()).unwrap()
        });
        assert_ne!(single, half);
        // A unit vector moves by 2^-11 at most, a distance by as much, and distances are at most 2.
        single.iter().zip(&half).for_each(|(one, other)| assert!((one - other).abs() <= 4.0 * 2f64.powi(-11) + 1e-6));
    }
}
