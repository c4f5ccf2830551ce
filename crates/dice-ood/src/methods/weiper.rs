//! WeiPer: what many perturbed heads make of an input, and how its values spread beside those of training features.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card, Kind, Otherwise, Parameter, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Graph, Op, Reduce, Wire};
use crate::head::LinearHead;
use crate::histogram::{Bins, Histogram, Span};
use crate::kernel::Product;
use crate::random::{Normal, SplitMix64};
use crate::state::State;
use crate::statistics::{BankRows, Needs};
use crate::training::Training;
use crate::views::{LogitSummary, Rows, Takes, Workspace};

/// `weiper`, `weiper(delta=2.4, lambda1=2)`, `weiper(base=msp)`: the paper's WeiPer+KLD, and WeiPer+MSP.
///
/// As in the authors' code for OpenOOD: the histogram of an input is smoothed, that of training features is not; epsilon is 0.01
/// for features and 0.025 for perturbed logits; what lies outside the span of training values is in no bin. Their noise is
/// torch's and other at each run, here a seed decides it; there the span and the mean are of all training rows, here of the bank;
/// there the largest value itself is in no bin, here in the last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weiper {
    base: Base,
    repeats: usize,
    delta: f64,
    bins: usize,
    /// Bins that are averaged, of features and of perturbed logits.
    smoothed: [usize; 2],
    /// What divergence and probability of perturbed logits are multiplied by.
    lambda: [f64; 2],
    seed: u64,
    bank: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Base {
    /// Divergences, and the mean largest probability.
    Divergence,
    /// The mean largest probability alone.
    Msp,
}

/// What is added to shares of features and of perturbed logits, so that their logarithm is finite.
const EPSILON: [f64; 2] = [0.01, 0.025];
/// Perturbed weights, at most: 4 GiB.
const MOST_WEIGHTS: usize = 1 << 30;
/// Perturbed classes that are multiplied together, where a head has no more.
const TOGETHER: usize = 1024;
/// Perturbed logits that are in memory together, for each thread.
const LOGITS: usize = 1 << 19;
/// The stems of the names of both histograms in files.
const NAMES: [&str; 2] = ["features", "perturbed"];

const fn real(name: &'static str, about: &'static str, most: f64, default: f64) -> Parameter {
    let kind = Kind::Real { least: 0.0, most };
    Parameter { name, about, kind, otherwise: Otherwise::Default(Value::Real(default)), bare: false }
}

const fn whole(name: &'static str, about: &'static str, least: u64, default: u64) -> Parameter {
    let kind = Kind::Whole { least, most: 1 << 12 };
    Parameter { name, about, kind, otherwise: Otherwise::Default(Value::Whole(default)), bare: false }
}

impl Method for Weiper {
    const CARD: &'static Card = &Card {
        name: "weiper",
        about: "how the values of an input spread, and those of its logits under many perturbed heads, beside training features",
        formula: "-(KL_h + lambda1 KL_f - lambda2 mean_r max softmax f_r), f_r = (W + delta |w_c| u_cr) h + b, u_cr uniform on the \
                  sphere; KL_h and KL_f the symmetric divergences of the smoothed histograms of all h_d and of all f_r from the \
                  mean histogram of training features",
        paper: "Granz, Heurich and Landgraf, NeurIPS, and its code",
        year: 2024,
        cost: "repeats C D an input; the fit takes twice that for each row of the bank; repeats C D weights are made anew of \
               the seed, two histograms are kept",
        exports: true,
        example: "weiper",
        parameters: &[
            Parameter {
                name: "base",
                about: "all of the score (the paper's WeiPer+KLD), or its mean largest probability alone (WeiPer+MSP)",
                kind: Kind::Choice(&["kld", "msp"]),
                otherwise: Otherwise::Default(Value::Choice("kld")),
                bare: false,
            },
            whole("repeats", "r, how many heads", 1, 100),
            real("delta", "length of the noise, as a multiple of that of the weights of a class", 1e3, 1.8),
            whole("bins", "bins of both histograms", 2, 100),
            whole("s1", "neighbouring bins that are averaged in the histogram of features", 1, 4),
            whole("s2", "neighbouring bins that are averaged in the histogram of perturbed logits", 1, 15),
            real("lambda1", "what the divergence of perturbed logits counts", 1e6, 2.5),
            real("lambda2", "what the mean largest probability counts", 1e6, 0.1),
            Parameter { about: "seed of the noise", ..Parameter::SEED },
            Parameter {
                about: "distinct training rows that the histograms rest on at most",
                otherwise: Otherwise::Default(Value::Whole(10_000)),
                ..Parameter::BANK
            },
        ],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        let whole = |name| given.whole(name) as usize;
        let weiper = Self {
            base: if given.choice("base") == "msp" { Base::Msp } else { Base::Divergence },
            repeats: whole("repeats"),
            delta: given.real("delta"),
            bins: whole("bins"),
            smoothed: ["s1", "s2"].map(whole),
            lambda: ["lambda1", "lambda2"].map(|name| given.real(name)),
            seed: given.whole("seed"),
            bank: whole("bank"),
        };
        match weiper.smoothed.iter().any(|smoothed| *smoothed > weiper.bins) {
            true => Err("`s1` and `s2` average bins: at most `bins` of them".into()),
            false => Ok(weiper),
        }
    }

    fn arguments(&self) -> Arguments {
        let (real, whole) = (|value| Some(Value::Real(value)), |value: usize| Some(Value::Whole(value as u64)));
        let base = if self.base == Base::Msp { "msp" } else { "kld" };
        let ([s1, s2], [lambda1, lambda2]) = (self.smoothed, self.lambda);
        Arguments::new(
            Self::CARD,
            [
                Some(Value::Choice(base)),
                whole(self.repeats),
                real(self.delta),
                whole(self.bins),
                whole(s1),
                whole(s2),
                real(lambda1),
                real(lambda2),
                Some(Value::Whole(self.seed)),
                whole(self.bank),
            ],
        )
    }
}

impl Score for Weiper {
    fn takes(&self) -> Takes {
        Takes::FEATURES
    }

    fn needs(&self) -> Needs {
        match self.base {
            Base::Divergence => Needs::bank(self.bank),
            Base::Msp => Needs::default(),
        }
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        let bank = match self.base {
            Base::Divergence => Some(on.statistics().bank()?.first(self.bank)),
            Base::Msp => None,
        };
        let heads = Heads::new(on.head(), self)?;
        let histograms = bank.map(|bank| self.histograms(&heads, &bank)).transpose()?;
        Ok(Arc::new(Perturbed { lambda: self.lambda, heads, histograms }))
    }

    fn load(&self, state: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        let mut histogram = |place: usize| {
            let mut part = state.take_part(NAMES[place]);
            let histogram = Histogram::load(&mut part, self.bins, self.smoothed[place], EPSILON[place])?;
            part.finish().map(|()| histogram)
        };
        let histograms = match self.base {
            Base::Divergence => Some([histogram(0)?, histogram(1)?]),
            Base::Msp => None,
        };
        Ok(Arc::new(Perturbed { lambda: self.lambda, heads: Heads::new(head, self)?, histograms }))
    }
}

impl Weiper {
    /// The mean histograms of the rows of `bank`, of features and of perturbed logits.
    fn histograms(&self, heads: &Heads, bank: &BankRows) -> Result<[Histogram; 2]> {
        let bins = Bins::spanning(Span::of(&bank.features), self.bins, "features of `weiper`")?;
        let of_rows: Vec<u32> = bank.features.chunks_exact(bank.units).flat_map(|row| counted(&bins, row)).collect();
        let own = self.histogram(0, bins, &[totals(&of_rows, &bank.counts)], bank, bank.units);
        let spans = heads.visit_bank(bank, |rows, _, workspace| {
            let mut span = Span::of(&[]);
            heads.visit(rows, workspace, |_, logits| span = span.and(Span::of(logits)));
            span
        });
        let span = spans.into_iter().fold(Span::of(&[]), Span::and);
        let bins = Bins::spanning(span, self.bins, "perturbed logits of `weiper`")?;
        let parts = heads.visit_bank(bank, |rows, counts, workspace| {
            let mut of_rows = vec![0; counts.len() * bins.len()];
            heads
                .visit(rows, workspace, |row, logits| bins.add(logits, &mut of_rows[row * bins.len()..][..bins.len()]));
            totals(&of_rows, counts)
        });
        Ok([own, self.histogram(1, bins, &parts, bank, heads.logits())])
    }

    /// The histogram of which `parts` hold `values` values for each row of `bank`.
    fn histogram(&self, place: usize, bins: Bins, parts: &[Vec<u128>], bank: &BankRows, values: usize) -> Histogram {
        let rows: f64 = bank.counts.iter().map(|count| *count as f64).sum();
        let share = |bin: usize| parts.iter().map(|part| part[bin]).sum::<u128>() as f64 / (rows * values as f64);
        let shares = (0..bins.len()).map(share).collect();
        Histogram::new(bins, shares, self.smoothed[place], EPSILON[place])
    }
}

/// How many of `values` are in each bin.
fn counted(bins: &Bins, values: &[f32]) -> Vec<u32> {
    let mut counts = vec![0; bins.len()];
    bins.add(values, &mut counts);
    counts
}

/// The sum over rows of what is in each bin `[rows, bins]`, each row as often as `counts` says.
fn totals(of_rows: &[u32], counts: &[u64]) -> Vec<u128> {
    let bins = of_rows.len() / counts.len().max(1);
    let mut totals = vec![0; bins];
    for (row, count) in of_rows.chunks_exact(bins.max(1)).zip(counts) {
        totals.iter_mut().zip(row).for_each(|(total, value)| *total += u128::from(*value) * u128::from(*count));
    }
    totals
}

/// Perturbed heads, some whole ones in each product, so that no more of them are in memory twice.
#[derive(Debug)]
struct Heads {
    head: LinearHead,
    repeats: usize,
    delta: f64,
    seed: u64,
    parts: Vec<Product>,
}

impl Heads {
    fn new(head: &LinearHead, of: &Weiper) -> Result<Self> {
        let (classes, units) = head.weight().dim();
        let weights = of.repeats.saturating_mul(classes).saturating_mul(units);
        if weights > MOST_WEIGHTS {
            return Err(Error::new(ErrorKind::Argument, format!("{weights} perturbed weights"))
                .argument("`weiper`")
                .expected(format!("at most {MOST_WEIGHTS}, {} times the {classes} x {units} of the head", of.repeats))
                .fix("take fewer repeats"));
        }
        let (repeats, delta, seed) = (of.repeats, of.delta, of.seed);
        let mut heads = Self { head: head.clone(), repeats, delta, seed, parts: Vec::new() };
        let together = (TOGETHER / classes).max(1);
        let firsts: Vec<usize> = (0..repeats).step_by(together).collect();
        let part = |first: &usize| {
            let repeats = *first..repeats.min(first + together);
            let (bias, outputs) = (heads.bias(repeats.len()), repeats.len() * classes);
            Product::new(&heads.weights(repeats), [outputs, units], Some(&bias))
        };
        let parts = firsts.par_iter().map(part).collect::<Result<_>>()?;
        heads.parts = parts;
        Ok(heads)
    }

    /// `W + delta |w_c| u` of some repeats `[k, C, D]`, u uniform on the sphere. A repeat does not depend on how many there are.
    fn weights(&self, repeats: Range<usize>) -> Vec<f32> {
        let mut weights = Vec::with_capacity(repeats.len() * self.head.weight().len());
        for repeat in repeats {
            let mut normal = Normal::new(SplitMix64::mix(self.seed) ^ SplitMix64::mix(repeat as u64 + 1));
            for row in self.head.weight().rows() {
                let noise: Vec<f64> = row.iter().map(|_| normal.next()).collect();
                let length = |squares: f64| squares.sqrt().max(f64::MIN_POSITIVE);
                let own = length(row.iter().map(|weight| f64::from(*weight).powi(2)).sum());
                let scale = self.delta * own / length(noise.iter().map(|value| value * value).sum());
                weights
                    .extend(row.iter().zip(noise).map(|(weight, value)| (f64::from(*weight) + scale * value) as f32));
            }
        }
        weights
    }

    /// The bias of so many repeats.
    fn bias(&self, repeats: usize) -> Vec<f32> {
        std::iter::repeat_n(self.head.bias(), repeats).flat_map(|bias| bias.to_vec()).collect()
    }

    /// Perturbed logits of an input.
    fn logits(&self) -> usize {
        self.repeats * self.head.classes()
    }

    /// Rows that are multiplied together.
    fn rows(&self) -> usize {
        (LOGITS / self.parts.iter().map(Product::outputs).max().unwrap_or(1)).max(1)
    }

    /// Shows the logits of some whole heads for each of `rows` `[n, D]` to `visit`, with the place of the row.
    fn visit(&self, rows: &[f32], workspace: &mut Workspace, mut visit: impl FnMut(usize, &[f32])) {
        let Workspace { scratch, products, .. } = workspace;
        let count = rows.len() / self.head.units();
        for part in &self.parts {
            products.clear();
            products.resize(count * part.outputs(), 0.0);
            // Rows that are not finite are refused by who scores them.
            let _ = part.multiply(rows, scratch, products);
            products.chunks_exact(part.outputs()).enumerate().for_each(|(row, logits)| visit(row, logits));
        }
    }

    /// What `make` makes of some rows of `bank` and how often each was seen, in their order whatever the threads.
    fn visit_bank<T: Send>(
        &self,
        bank: &BankRows,
        make: impl Fn(&[f32], &[u64], &mut Workspace) -> T + Sync,
    ) -> Vec<T> {
        let rows = self.rows();
        let parts = bank.features.par_chunks(rows * bank.units).zip(bank.counts.par_chunks(rows));
        parts.map_init(Workspace::default, |workspace, (rows, counts)| make(rows, counts, workspace)).collect()
    }
}

#[derive(Debug)]
struct Perturbed {
    lambda: [f64; 2],
    heads: Heads,
    /// Of features and of perturbed logits.
    histograms: Option<[Histogram; 2]>,
}

/// The largest probability; NaN where logits overflow, which must not pass for certainty.
fn largest_probability(logits: &[f32]) -> f64 {
    let summary = LogitSummary::of(logits);
    if summary.max.is_finite() { 1.0 / (1.0 + summary.rest) } else { f64::NAN }
}

impl Perturbed {
    fn score_some(&self, features: &[f32], workspace: &mut Workspace, out: &mut [f64]) {
        let classes = self.heads.head.classes();
        let bins = self.histograms.as_ref().map_or(0, |[_, perturbed]| perturbed.bins().len());
        let mut counts = vec![0; out.len() * bins];
        out.fill(0.0);
        self.heads.visit(features, workspace, |row, logits| {
            out[row] += logits.chunks_exact(classes).map(largest_probability).sum::<f64>();
            if let Some([_, perturbed]) = &self.histograms {
                perturbed.bins().add(logits, &mut counts[row * bins..][..bins]);
            }
        });
        out.iter_mut().for_each(|out| *out /= self.heads.repeats as f64);
        let Some([own, perturbed]) = &self.histograms else { return };
        let rows = features.chunks_exact(self.heads.head.units()).zip(counts.chunks_exact(bins));
        for (out, (row, counts)) in out.iter_mut().zip(rows) {
            let of_features = own.divergence(&counted(own.bins(), row), row.len());
            let of_logits = perturbed.divergence(counts, self.heads.logits());
            *out = self.lambda[1] * *out - of_features - self.lambda[0] * of_logits;
        }
    }
}

impl Scorer for Perturbed {
    fn score(&self, rows: &Rows<'_>, workspace: &mut Workspace, out: &mut [f64]) {
        let together = self.heads.rows();
        for (features, out) in rows.all_features().chunks(together * rows.units).zip(out.chunks_mut(together)) {
            self.score_some(features, workspace, out);
        }
    }

    fn save(&self, to: &mut State) {
        for (name, histogram) in NAMES.iter().zip(self.histograms.iter().flatten()) {
            let mut part = State::default();
            histogram.save(&mut part);
            to.put_part(name, part);
        }
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let (heads, count) = (&self.heads, self.heads.logits());
        let products = graph.times(of.features, [count, heads.head.units()], heads.weights(0..heads.repeats));
        let bias = graph.row(heads.bias(heads.repeats));
        let logits = graph.add(products, bias);
        let by_head = graph.push(Op::Reshape(logits, heads.head.classes()));
        let softmax = graph.push(Op::Softmax(by_head));
        let largest = graph.reduce(Reduce::Max, softmax);
        let largest = graph.push(Op::Reshape(largest, heads.repeats));
        let sum = graph.sum(largest);
        let mean = graph.scale(sum, 1.0 / heads.repeats as f64);
        let Some([own, perturbed]) = &self.histograms else { return Some(mean) };
        let (features, logits) =
            (own.express(graph, of.features, heads.head.units()), perturbed.express(graph, logits, count));
        let certain = graph.scale(mean, self.lambda[1]);
        let apart = graph.scale(logits, self.lambda[0]);
        let score = graph.sub(certain, features);
        Some(graph.sub(score, apart))
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::{Naive, assert_scores, dot};
    use super::*;
    use crate::spec::Spec;
    use crate::statistics::Statistics;

    fn weiper(repeats: usize) -> Weiper {
        let spec: Spec = format!("weiper(repeats={repeats})").parse().unwrap();
        let given = spec.as_pipeline().unwrap().score.arguments();
        Weiper::from_arguments(&given).unwrap()
    }

    fn head_of(given: &Naive) -> LinearHead {
        let narrow = |values: &[f64]| values.iter().map(|value| *value as f32).collect::<Vec<f32>>();
        LinearHead::from_rows(narrow(&given.weight.concat()), narrow(&given.bias), given.weight[0].len()).unwrap()
    }

    /// The shares of `values` in equal bins from `least` to `largest`, that value in the last.
    fn shares(values: &[f64], [least, largest]: [f64; 2], bins: usize) -> Vec<f64> {
        let edge = |place: usize| least + (largest - least) * place as f64 / bins as f64;
        let within = |x: f64, bin: usize| edge(bin) <= x && (x < edge(bin + 1) || (bin + 1 == bins && x <= largest));
        let share = |bin| values.iter().filter(|x| within(**x, bin)).count() as f64 / values.len() as f64;
        (0..bins).map(share).collect()
    }

    /// The published divergence of two histograms.
    fn divergence(sample: &[f64], mean: &[f64], smoothed: usize, epsilon: f64) -> f64 {
        let at = |place: usize| sample[place.saturating_sub((smoothed - 1) / 2).min(sample.len() - 1)];
        let smooth = |bin: usize| (bin..bin + smoothed).map(at).sum::<f64>() / smoothed as f64 + epsilon;
        let normal = |values: Vec<f64>| -> Vec<f64> {
            let sum: f64 = values.iter().sum();
            values.into_iter().map(|value| value / sum).collect()
        };
        let q = normal((0..sample.len()).map(smooth).collect());
        let p = normal(mean.iter().map(|share| share + epsilon).collect());
        let one = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * (a.ln() - b.ln())).sum::<f64>();
        one(&p, &q) + one(&q, &p)
    }

    fn mean_shares(all: &[Vec<f64>], bins: usize) -> ([f64; 2], Vec<f64>) {
        let flat = all.concat();
        let ends = [flat.iter().copied().fold(f64::INFINITY, f64::min), flat.iter().copied().fold(f64::MIN, f64::max)];
        (ends, shares(&flat, ends, bins))
    }

    fn perturbed(given: &Naive, repeats: usize, h: &[f64]) -> Vec<f64> {
        let head = head_of(given);
        let weights = Heads::new(&head, &weiper(repeats)).unwrap().weights(0..repeats);
        let rows = weights.chunks_exact(h.len()).map(|row| row.iter().map(|w| f64::from(*w)).collect::<Vec<f64>>());
        rows.enumerate().map(|(place, row)| dot(&row, h) + given.bias[place % given.bias.len()]).collect()
    }

    fn msp(given: &Naive, logits: &[f64]) -> f64 {
        let heads = logits.chunks_exact(given.bias.len());
        let largest = |f: &[f64]| {
            let most = f.iter().copied().fold(f64::MIN, f64::max);
            most.exp() / f.iter().map(|f| f.exp()).sum::<f64>()
        };
        heads.clone().map(largest).sum::<f64>() / heads.len() as f64
    }

    #[test]
    fn it_is_the_published_formula() {
        use std::cell::RefCell;
        type Known = (Vec<f64>, ([f64; 2], Vec<f64>), ([f64; 2], Vec<f64>));
        let known: RefCell<Option<Known>> = RefCell::new(None);
        assert_scores("weiper(repeats=4, bins=20, s1=3, s2=4, lambda1=2, lambda2=0.5)", |given, h| {
            let mut known = known.borrow_mut();
            if known.as_ref().is_none_or(|known| known.0 != given.bias) {
                let logits: Vec<Vec<f64>> = given.rows.iter().map(|row| perturbed(given, 4, row)).collect();
                *known = Some((given.bias.clone(), mean_shares(&given.rows, 20), mean_shares(&logits, 20)));
            }
            let (_, own, of_logits) = known.as_ref().unwrap();
            let logits = perturbed(given, 4, h);
            let features = divergence(&shares(h, own.0, 20), &own.1, 3, 0.01);
            let apart = divergence(&shares(&logits, of_logits.0, 20), &of_logits.1, 4, 0.025);
            -(features + 2.0 * apart - 0.5 * msp(given, &logits))
        });
        assert_scores("weiper(base=msp, repeats=3)", |given, h| msp(given, &perturbed(given, 3, h)));
    }

    #[test]
    fn noise_has_the_length_that_delta_says_and_its_own_direction_each_time() {
        let head = LinearHead::from_rows((0..60).map(|i| (i % 7) as f32 - 2.0).collect(), vec![0.0; 3], 20).unwrap();
        let heads = |repeats| Heads::new(&head, &weiper(repeats)).unwrap().weights(0..repeats);
        let weights = heads(5);
        assert_eq!(weights[..2 * 60], heads(2), "a repeat does not depend on how many there are");
        let noise: Vec<Vec<f64>> = weights
            .chunks_exact(20)
            .enumerate()
            .map(|(place, row)| {
                let own: Vec<f64> = head.weight().row(place % 3).iter().map(|w| f64::from(*w)).collect();
                let noise: Vec<f64> = row.iter().zip(&own).map(|(w, own)| f64::from(*w) - own).collect();
                let ratio = (dot(&noise, &noise) / dot(&own, &own)).sqrt();
                assert!((ratio - 1.8).abs() < 1e-5, "{ratio}");
                noise.iter().map(|value| value / dot(&noise, &noise).sqrt()).collect()
            })
            .collect();
        for (place, one) in noise.iter().enumerate() {
            // The cosine of two directions has the standard deviation 1 / sqrt(20).
            assert!(noise[..place].iter().all(|other| dot(one, other).abs() < 0.9), "{place}");
        }
    }

    #[test]
    fn constant_features_and_too_many_weights_are_refused() {
        let head = Arc::new(LinearHead::from_rows(vec![1.0; 6], vec![0.0; 3], 2).unwrap());
        let fit = |text: &str, rows: [[f32; 2]; 2]| {
            let spec: Spec = text.parse().unwrap();
            let mut statistics = Statistics::of_head(&head, &spec.needs()).unwrap();
            statistics.update(ndarray::arr2(&rows).view()).unwrap();
            spec.fit(&head, &statistics)
        };
        let fitted = fit("weiper(repeats=2)", [[1.0, 0.0], [0.0, 1.0]]).unwrap();
        assert!(fitted.score_one(&[0.0, 0.0]).unwrap().is_finite());
        assert!(fitted.score_one(&[1e38, 1e38]).is_err(), "logits overflow");
        let constant = fit("weiper", [[1.0, 1.0], [1.0, 1.0]]).unwrap_err();
        assert!(
            constant.to_string().contains("features of `weiper`: expected training values that vary"),
            "{constant}"
        );
        let wide = LinearHead::from_rows(vec![1.0; 300_000], vec![0.0; 1000], 300).unwrap();
        let many = Heads::new(&wide, &weiper(4096)).unwrap_err();
        assert!(many.to_string().contains("fewer repeats"), "{many}");
    }
}
