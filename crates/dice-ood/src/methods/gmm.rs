//! A mixture of normal distributions of features.

use std::sync::Arc;

use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card, Kind, Otherwise, Parameter, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Graph, Reduce, Wire};
use crate::head::LinearHead;
use crate::kernel::Product;
use crate::random::SplitMix64;
use crate::state::{State, check_finite};
use crate::statistics::{BankRows, Needs};
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `gmm`, `gmm(10, seed=1)`. Fitted by expectation and maximisation from k-means++ centres to features that are standardised by
/// unit; covariances are diagonal, each variance raised by 1e-3 of the unit's, so that a unit that is silent within a component
/// does not decide alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gmm {
    components: Option<u64>,
    seed: u64,
}

/// Training rows that the fit rests on, at most.
const ROWS: usize = 10_000;
/// Rounds of the fit, at most.
const ROUNDS: usize = 100;
/// The fit ends where a round adds less to the mean log-likelihood.
const GAIN: f64 = 1e-3;
/// What is added to every variance of standardised features.
const RIDGE: f64 = 1e-3;

impl Method for Gmm {
    const CARD: &'static Card = &Card {
        name: "gmm",
        about: "log-density of a mixture of normal distributions with diagonal covariances (pytorch-ood has a full one a class, OpenOOD one for all)",
        formula: "log sum_k pi_k N(s; m_k, diag v_k), s = (h - mean) / sd by unit",
        paper: "Dempster, Laird and Rubin, of features; in OpenOOD",
        year: 1977,
        cost: "2 D components an input; the fit takes up to 100 rounds over 10,000 rows; means and variances are kept",
        exports: true,
        example: "gmm(3)",
        parameters: &[
            Parameter {
                name: "components",
                about: "normal distributions; by default as many as the head has classes",
                kind: Kind::Whole { least: 1, most: 1 << 12 },
                otherwise: Otherwise::Absent,
                bare: true,
            },
            Parameter::SEED,
        ],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        let components = match given.get("components") {
            Some(Value::Whole(components)) => Some(components),
            _ => None,
        };
        Ok(Self { components, seed: given.whole("seed") })
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [self.components.map(Value::Whole), Some(Value::Whole(self.seed))])
    }
}

impl Gmm {
    fn components(&self, head: &LinearHead) -> usize {
        self.components.map_or(head.classes(), |components| components as usize)
    }
}

impl Score for Gmm {
    fn takes(&self) -> Takes {
        Takes::FEATURES
    }

    fn needs(&self) -> Needs {
        Needs::bank(ROWS)
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        let components = self.components(on.head());
        let bank = on.statistics().bank()?.first(ROWS);
        if bank.counts.len() < components {
            return Err(Error::new(ErrorKind::Argument, format!("{} distinct training rows", bank.counts.len()))
                .argument("components of `gmm`")
                .expected(format!("at least {components}, one for each component")));
        }
        let standard = Standard::of(&bank)?;
        let mixture = Mixture::fit(&standard.rows(&bank.features), &bank, components, self.seed);
        Ok(Arc::new(Density::new(standard, mixture.coefficients(), mixture.constants())?))
    }

    fn load(&self, state: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        let (units, components) = (head.units(), self.components(head));
        let mean = state.take::<f32>("mean", &[Some(units)])?;
        let inverse = state.take::<f32>("inverse", &[Some(units)])?;
        let coefficients = state.take::<f32>("coefficients", &[Some(components), Some(2 * units)])?;
        let constants = state.take::<f32>("constants", &[Some(components)])?;
        let all = [("mean", &mean), ("inverse", &inverse), ("coefficients", &coefficients), ("constants", &constants)];
        all.iter().try_for_each(|(name, values)| check_finite(name, values))?;
        Ok(Arc::new(Density::new(Standard { mean, inverse }, coefficients, constants)?))
    }
}

/// What makes the units of training rows of mean 0 and variance 1; constant units are centred alone.
#[derive(Debug)]
struct Standard {
    /// `[D]`.
    mean: Arc<[f32]>,
    /// `1 / sd` `[D]`.
    inverse: Arc<[f32]>,
}

impl Standard {
    fn of(bank: &BankRows) -> Result<Self> {
        let rows: f64 = bank.counts.iter().map(|count| *count as f64).sum();
        let average = |unit: usize, value: &dyn Fn(f64) -> f64| {
            let column = bank.features.iter().skip(unit).step_by(bank.units);
            column.zip(&*bank.counts).map(|(x, count)| value(f64::from(*x)) * *count as f64).sum::<f64>() / rows
        };
        let means: Vec<f64> = (0..bank.units).map(|unit| average(unit, &|x| x)).collect();
        let variance = |(unit, mean): (usize, &f64)| average(unit, &|x| (x - mean).powi(2));
        let variances: Vec<f64> = means.iter().enumerate().map(variance).collect();
        if variances.iter().all(|variance| *variance <= 0.0) {
            return Err(Error::new(ErrorKind::Argument, "training rows that are all the same")
                .tensor("features of `gmm`")
                .expected("features that vary"));
        }
        let inverse = |variance: &f64| if *variance > 0.0 { variance.sqrt().recip() as f32 } else { 1.0 };
        let inverse = variances.iter().map(inverse).collect();
        Ok(Self { mean: means.iter().map(|mean| *mean as f32).collect(), inverse })
    }

    fn rows(&self, rows: &[f32]) -> Vec<f32> {
        let units = self.mean.iter().zip(&*self.inverse).cycle();
        rows.iter().zip(units).map(|(value, (mean, inverse))| (value - mean) * inverse).collect()
    }
}

/// Normal distributions of standardised features.
struct Mixture {
    units: usize,
    weights: Vec<f64>,
    /// `[K, D]`.
    means: Vec<f64>,
    /// `[K, D]`.
    variances: Vec<f64>,
}

impl Mixture {
    /// Fits to `rows` `[M, D]`, each as often as `bank` counts it.
    fn fit(rows: &[f32], bank: &BankRows, components: usize, seed: u64) -> Self {
        let mut shares = first_shares(rows, bank, components, seed);
        let mut mixture = Self::of_shares(rows, bank, &shares);
        let mut before = f64::NEG_INFINITY;
        for _ in 0..ROUNDS {
            let likelihood = mixture.expect(rows, bank, &mut shares);
            mixture = Self::of_shares(rows, bank, &shares);
            if likelihood - before < GAIN {
                break;
            }
            before = likelihood;
        }
        mixture
    }

    /// The likeliest mixture where row i belongs to component k by `shares` `[M, K]`.
    fn of_shares(rows: &[f32], bank: &BankRows, shares: &[f64]) -> Self {
        let (units, components) = (bank.units, shares.len() / bank.counts.len());
        let mut counts = vec![0.0; components];
        let (mut sums, mut squares) = (vec![0.0; components * units], vec![0.0; components * units]);
        let parts = rows.chunks_exact(units).zip(shares.chunks_exact(components)).zip(&*bank.counts);
        for ((row, shares), count) in parts {
            // Most shares are nothing.
            for (component, share) in shares.iter().enumerate().filter(|(_, share)| **share > 1e-12) {
                let weight = share * *count as f64;
                counts[component] += weight;
                let sums = sums[component * units..].iter_mut().zip(&mut squares[component * units..]);
                for (value, (sum, square)) in row.iter().map(|value| f64::from(*value)).zip(sums) {
                    *sum += weight * value;
                    *square += weight * value * value;
                }
            }
        }
        let all: f64 = counts.iter().sum();
        let of = |place: usize| counts[place / units].max(f64::MIN_POSITIVE);
        let means: Vec<f64> = sums.iter().enumerate().map(|(place, sum)| sum / of(place)).collect();
        let spread = |(place, square): (usize, &f64)| (square / of(place) - means[place].powi(2)).max(0.0) + RIDGE;
        let variances = squares.iter().enumerate().map(spread).collect();
        Self { units, weights: counts.iter().map(|count| count / all).collect(), means, variances }
    }

    /// To which component each row belongs, into `shares`; the mean log-likelihood.
    fn expect(&self, rows: &[f32], bank: &BankRows, shares: &mut [f64]) -> f64 {
        let (mut sum, mut all) = (0.0, 0.0);
        let parts = rows.chunks_exact(self.units).zip(shares.chunks_exact_mut(self.weights.len()));
        let logs: Vec<f64> = (0..self.weights.len()).map(|component| self.log_constant(component)).collect();
        for ((row, shares), count) in parts.zip(&*bank.counts) {
            for (component, share) in shares.iter_mut().enumerate() {
                *share = logs[component] - 0.5 * self.distance(row, component);
            }
            let most = shares.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total = most + shares.iter().map(|share| (share - most).exp()).sum::<f64>().ln();
            shares.iter_mut().for_each(|share| *share = (*share - total).exp());
            sum += *count as f64 * total;
            all += *count as f64;
        }
        sum / all
    }

    /// `sum_d (s_d - m_d)^2 / v_d`.
    fn distance(&self, row: &[f32], component: usize) -> f64 {
        let of = |values: &[f64]| component * self.units..values.len().min((component + 1) * self.units);
        let parts = self.means[of(&self.means)].iter().zip(&self.variances[of(&self.variances)]);
        row.iter().zip(parts).map(|(value, (mean, variance))| (f64::from(*value) - mean).powi(2) / variance).sum()
    }

    /// The log-density of a component at its mean, and the log of its weight.
    fn log_constant(&self, component: usize) -> f64 {
        let variances = &self.variances[component * self.units..][..self.units];
        let volume = |variance: &f64| (std::f64::consts::TAU * variance).ln();
        // A component that no row belongs to has no density.
        self.weights[component].max(f64::MIN_POSITIVE).ln() - 0.5 * variances.iter().map(volume).sum::<f64>()
    }

    /// Of `s_d^2` and `s_d`, `[K, 2 D]`.
    fn coefficients(&self) -> Arc<[f32]> {
        let parts = self.variances.chunks_exact(self.units).zip(self.means.chunks_exact(self.units));
        parts
            .flat_map(|(variances, means)| {
                let squares = variances.iter().map(|variance| -0.5 / variance);
                squares.chain(means.iter().zip(variances).map(|(mean, variance)| mean / variance))
            })
            .map(|value| value as f32)
            .collect()
    }

    /// What the coefficients leave out `[K]`.
    fn constants(&self) -> Arc<[f32]> {
        let at_origin = vec![0.0; self.units];
        let constant = |component| self.log_constant(component) - 0.5 * self.distance(&at_origin, component);
        (0..self.weights.len()).map(|component| constant(component) as f32).collect()
    }
}

/// Each row to the nearest of some rows, chosen by k-means++: the farther from those chosen, the likelier.
fn first_shares(rows: &[f32], bank: &BankRows, components: usize, seed: u64) -> Vec<f64> {
    let mut random = SplitMix64::new(seed);
    let row = |at: usize| &rows[at * bank.units..][..bank.units];
    let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    let count = bank.counts.len();
    let mut nearest = vec![(f64::INFINITY, 0); count];
    let mut chosen = random.below(count as u64) as usize;
    for component in 0..components {
        for (at, nearest) in nearest.iter_mut().enumerate() {
            let distance = apart(row(at), row(chosen));
            if distance < nearest.0 {
                *nearest = (distance, component);
            }
        }
        let weight = |at: usize| nearest[at].0 * bank.counts[at] as f64;
        let all: f64 = (0..count).map(weight).sum();
        let mut left = all * (random.next() >> 11) as f64 / (1u64 << 53) as f64;
        chosen = (0..count)
            .find(|at| {
                left -= weight(*at);
                left < 0.0
            })
            .unwrap_or(count - 1);
    }
    let mut shares = vec![0.0; count * components];
    nearest.iter().enumerate().for_each(|(at, (_, component))| shares[at * components + component] = 1.0);
    shares
}

#[derive(Debug)]
struct Density {
    standard: Standard,
    /// Of `s_d^2` and `s_d`, `[K, 2 D]`.
    coefficients: Arc<[f32]>,
    /// `[K]`.
    constants: Arc<[f32]>,
    product: Product,
}

impl Density {
    fn new(standard: Standard, coefficients: Arc<[f32]>, constants: Arc<[f32]>) -> Result<Self> {
        let shape = [constants.len(), 2 * standard.mean.len()];
        let product = Product::new(&coefficients, shape, Some(&constants))?;
        Ok(Self { standard, coefficients, constants, product })
    }
}

impl Scorer for Density {
    fn score(&self, rows: &Rows<'_>, workspace: &mut Workspace, out: &mut [f64]) {
        let Workspace { scratch, rows: both, products, .. } = workspace;
        both.clear();
        for row in rows.features() {
            let standard = self.standard.rows(row);
            both.extend(standard.iter().map(|value| value * value));
            both.extend(standard);
        }
        products.clear();
        products.resize(out.len() * self.constants.len(), 0.0);
        let _ = self.product.multiply(both, scratch, products);
        for (out, logs) in out.iter_mut().zip(products.chunks_exact(self.constants.len())) {
            let most = f64::from(logs.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            *out = most + logs.iter().map(|log| (f64::from(*log) - most).exp()).sum::<f64>().ln();
        }
    }

    fn save(&self, to: &mut State) {
        let (units, components) = (self.standard.mean.len(), self.constants.len());
        to.put("mean", &[units], Arc::clone(&self.standard.mean));
        to.put("inverse", &[units], Arc::clone(&self.standard.inverse));
        to.put("coefficients", &[components, 2 * units], Arc::clone(&self.coefficients));
        to.put("constants", &[components], Arc::clone(&self.constants));
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let (units, components) = (self.standard.mean.len(), self.constants.len());
        let mean = graph.row(self.standard.mean.iter().copied());
        let inverse = graph.row(self.standard.inverse.iter().copied());
        let centred = graph.sub(of.features, mean);
        let standard = graph.mul(centred, inverse);
        let squares = graph.mul(standard, standard);
        let half = |second: usize| -> Vec<f32> {
            let rows = self.coefficients.chunks_exact(2 * units);
            rows.flat_map(|row| row[second * units..][..units].iter().copied()).collect()
        };
        let squares = graph.times(squares, [components, units], half(0));
        let linear = graph.times(standard, [components, units], half(1));
        let constants = graph.row(self.constants.iter().copied());
        let sum = graph.add(squares, linear);
        let logs = graph.add(sum, constants);
        Some(graph.reduce(Reduce::LogSumExp, logs))
    }
}
