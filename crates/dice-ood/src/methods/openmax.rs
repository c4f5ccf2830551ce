//! OpenMax: logits recalibrated by how extreme the distance to a class's mean logits is, against an unknown class.

use std::sync::Arc;

use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card, Kind, Otherwise, Parameter, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Binary, Graph, Op, Reduce, Unary, Wire};
use crate::head::LinearHead;
use crate::state::{State, check_finite};
use crate::statistics::{BankRows, Needs};
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `openmax`, `openmax(10)`.
///
/// Distances are Euclidean, tails of 20 and 3 classes recalibrated, as in OpenOOD. pytorch-ood takes 10 classes and tails of 25, fits
/// means and tails also to rows that the head is wrong on, and takes the distance to a class that no input of the batch is predicted
/// as for 0. Tails are fitted as by libMR, which moves them to begin at 10,000. The score is the logarithm of the odds against the
/// unknown class, which ranks as its probability does and does not saturate.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenMax {
    tail: usize,
    alpha: usize,
}

/// Training rows that means and tails rest on, at most.
const ROWS: usize = 50_000;
/// Rows whose logits are in memory together.
const TOGETHER: usize = 1024;
/// Where libMR has the tails begin.
const ORIGIN: f64 = 10_000.0;

impl Method for OpenMax {
    const CARD: &'static Card = &Card {
        name: "openmax",
        about: "odds of the known classes against an unknown one, which gains where the logits are unusually far from the mean \
                logits of the likeliest classes",
        formula: "log sum_c exp(f_c (1 - q_c)) - sum_c f_c q_c, q_c = (alpha - i_c) / alpha F_c(|f - m_c|) for the alpha largest f_c, \
                  i_c = 0 for the largest of all, else q_c = 0; m_c the mean logits of the training rows of class c that the head is \
                  right on, F_c the Weibull distribution (maximum likelihood) of 10000 + d - d_c over their `tail` largest \
                  distances, d_c the least of these",
        paper: "Bendale and Boult, CVPR",
        year: 2016,
        cost: "alpha C an input; C^2 numbers are kept",
        exports: true,
        example: "openmax(20)",
        parameters: &[
            Parameter {
                name: "tail",
                about: "largest distances of each class that its tail is fitted to",
                kind: Kind::Whole { least: 2, most: 1 << 20 },
                otherwise: Otherwise::Default(Value::Whole(20)),
                bare: true,
            },
            Parameter {
                name: "alpha",
                about: "how many of the largest logits are recalibrated",
                kind: Kind::Whole { least: 1, most: 1 << 20 },
                otherwise: Otherwise::Default(Value::Whole(3)),
                bare: false,
            },
        ],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self { tail: given.whole("tail") as usize, alpha: given.whole("alpha") as usize })
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [Some(Value::Whole(self.tail as u64)), Some(Value::Whole(self.alpha as u64))])
    }
}

impl Score for OpenMax {
    fn takes(&self) -> Takes {
        Takes::LOGITS
    }

    fn needs(&self) -> Needs {
        Needs::labelled_bank(ROWS)
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        let bank = on.statistics().bank()?.first(ROWS);
        let classes = on.head().classes();
        let labels = bank.labels_of("openmax", classes)?;
        let (mut means, mut rows) = (vec![0.0; classes * classes], vec![0u64; classes]);
        for_each_right(on, &bank, &labels, |logits, class, count| {
            rows[class] = rows[class].saturating_add(count);
            let mean = means[class * classes..].iter_mut().zip(logits);
            mean.for_each(|(mean, logit)| *mean += count as f64 * f64::from(*logit));
        })?;
        self.check(&rows)?;
        for (mean, rows) in means.chunks_exact_mut(classes).zip(&rows) {
            mean.iter_mut().for_each(|value| *value /= *rows as f64);
        }
        let mut tails = vec![Vec::new(); classes];
        for_each_right(on, &bank, &labels, |logits, class, count| {
            let copies = usize::try_from(count).unwrap_or(self.tail).min(self.tail);
            let distance = distance(logits, &means[class * classes..][..classes]);
            largest(&mut tails[class], self.tail, std::iter::repeat_n(distance, copies));
        })?;
        let fit = |(class, mut tail): (usize, Vec<f64>)| {
            tail.sort_unstable_by(|a, b| b.total_cmp(a));
            WeibullTail::fit(&tail[..self.tail.min(tail.len())])
                .ok_or_else(|| self.unfit(class, "distances that are all equal"))
        };
        let tails = tails.into_iter().enumerate().map(fit).collect::<Result<_>>()?;
        Ok(Arc::new(Recalibrated { alpha: self.alpha, classes, means: means.into(), tails }))
    }

    fn load(&self, state: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        let classes = head.classes();
        let means = state.take::<f64>("means", &[Some(classes), Some(classes)])?;
        let tails = state.take::<f64>("tails", &[Some(classes), Some(3)])?;
        check_finite("means", &means)?;
        check_finite("tails", &tails)?;
        let (tails, _) = tails.as_chunks::<3>();
        if tails.iter().any(|[least, shape, _]| *shape <= 0.0 || *least < 0.0) {
            return Err(Error::new(ErrorKind::Malformed, "a shape or a distance below 0").tensor("tails"));
        }
        let tails =
            tails.iter().map(|[least, shape, level]| WeibullTail { least: *least, shape: *shape, level: *level });
        Ok(Arc::new(Recalibrated { alpha: self.alpha, classes, means, tails: tails.collect() }))
    }
}

impl OpenMax {
    fn check(&self, rows: &[u64]) -> Result<()> {
        match rows.iter().position(|rows| *rows < self.tail as u64) {
            None => Ok(()),
            Some(class) => Err(self.unfit(class, &format!("{} rows that the head is right on", rows[class]))),
        }
    }

    fn unfit(&self, class: usize, found: &str) -> Error {
        Error::new(ErrorKind::Argument, found)
            .argument(format!("class {class} of `openmax`"))
            .expected(format!("at least {} rows that the head is right on, at different distances", self.tail))
            .fix("take a shorter tail, or more training rows")
    }
}

/// Each row of `bank` that the head is right on: its logits `[C]`, its class, how often it was seen.
fn for_each_right(
    on: &Training<'_>,
    bank: &BankRows,
    labels: &[usize],
    mut of_row: impl FnMut(&[f32], usize, u64),
) -> Result<()> {
    let parts = bank.features.chunks(TOGETHER * bank.units).zip(labels.chunks(TOGETHER));
    for ((rows, labels), counts) in parts.zip(bank.counts.chunks(TOGETHER)) {
        let logits = on.logits(rows)?;
        for ((logits, label), count) in logits.chunks_exact(on.head().classes()).zip(labels).zip(counts) {
            if logits[..*label].iter().all(|other| *other < logits[*label])
                && logits[*label..].iter().all(|other| *other <= logits[*label])
            {
                of_row(logits, *label, *count);
            }
        }
    }
    Ok(())
}

/// Adds `values` to `kept`, of which only the `most` largest count.
fn largest(kept: &mut Vec<f64>, most: usize, values: impl Iterator<Item = f64>) {
    kept.extend(values);
    if kept.len() > 4 * most + 64 {
        kept.select_nth_unstable_by(most - 1, |a, b| b.total_cmp(a));
        kept.truncate(most);
    }
}

fn distance(logits: &[f32], mean: &[f64]) -> f64 {
    logits.iter().zip(mean).map(|(logit, mean)| (f64::from(*logit) - mean).powi(2)).sum::<f64>().sqrt()
}

/// A Weibull distribution of `x = 10000 + d - least`, in terms of `y = log(x / 10000)`: `F = 1 - exp(-exp(shape y - level))`.
#[derive(Debug, Clone, Copy)]
struct WeibullTail {
    least: f64,
    shape: f64,
    level: f64,
}

impl WeibullTail {
    /// The likeliest one for `distances`; `None` where they are all equal.
    fn fit(distances: &[f64]) -> Option<Self> {
        let least = distances.iter().copied().fold(f64::INFINITY, f64::min);
        let logs: Vec<f64> = distances.iter().map(|distance| ((distance - least) / ORIGIN).ln_1p()).collect();
        let most = logs.iter().copied().fold(0.0, f64::max);
        if most <= 0.0 {
            return None;
        }
        let count = logs.len() as f64;
        let mean = logs.iter().sum::<f64>() / count;
        // With weights `exp(shape y)` the weighted mean of y less their plain mean is `1 / shape`: the left side rises with the
        // shape and the right side falls. In units of the largest y the shape is of the order of 1.
        let excess = |scaled: f64| {
            let weights = logs.iter().map(|log| (scaled * (log / most - 1.0)).exp());
            let (sum, first) =
                weights.zip(&logs).fold((0.0, 0.0), |(sum, first), (weight, log)| (sum + weight, first + weight * log));
            (first / sum - mean) / most - 1.0 / scaled
        };
        let (mut low, mut high) = (1e-6f64, 1e9f64);
        for _ in 0..120 {
            let middle = (low * high).sqrt();
            if excess(middle) < 0.0 { low = middle } else { high = middle }
        }
        let scaled = (low * high).sqrt();
        let mean_power = logs.iter().map(|log| (scaled * (log / most - 1.0)).exp()).sum::<f64>() / count;
        Some(Self { least, shape: scaled / most, level: scaled + mean_power.ln() })
    }

    /// F at a distance.
    fn probability(&self, distance: f64) -> f64 {
        // Far below the tail x would not be positive.
        let log = ((distance - self.least) / ORIGIN).max(-0.5).ln_1p();
        -(-(self.shape * log - self.level).exp()).exp_m1()
    }
}

#[derive(Debug)]
struct Recalibrated {
    alpha: usize,
    classes: usize,
    /// `[C, C]`.
    means: Arc<[f64]>,
    tails: Vec<WeibullTail>,
}

impl Recalibrated {
    /// The score of one input; `order` holds every class.
    fn score_of(&self, logits: &[f32], order: &mut [usize]) -> f64 {
        let alpha = self.alpha.min(self.classes);
        // Of equal logits the later class comes first, as if the order of all were turned around.
        let descending = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(b.cmp(a));
        order.select_nth_unstable_by(alpha - 1, descending);
        order[..alpha].sort_unstable_by(descending);
        let (mut unknown, mut most) = (0.0, f64::NEG_INFINITY);
        let share = |place: usize, class: usize| {
            let distance = distance(logits, &self.means[class * self.classes..][..self.classes]);
            (self.alpha - place) as f64 / self.alpha as f64 * self.tails[class].probability(distance)
        };
        let known = |place: usize, class: usize| {
            let logit = f64::from(logits[class]);
            let lost = if place < alpha { logit * share(place, class) } else { 0.0 };
            (logit - lost, lost)
        };
        // The sum of exponentials, scaled anew by the largest so far.
        let mut sum = 0.0;
        for (place, class) in order.iter().enumerate() {
            let (logit, lost) = known(place, *class);
            unknown += lost;
            if logit > most {
                sum = sum * (most - logit).exp() + 1.0;
                most = logit;
            } else {
                sum += (logit - most).exp();
            }
        }
        most + f64::ln(sum) - unknown
    }
}

impl Scorer for Recalibrated {
    fn score(&self, rows: &Rows<'_>, _: &mut Workspace, out: &mut [f64]) {
        let mut order = Vec::with_capacity(self.classes);
        for (score, logits) in out.iter_mut().zip(rows.logits()) {
            // Anew for each input: the order of equal logits, and of sums, must not depend on the input before.
            order.clear();
            order.extend(0..self.classes);
            *score = self.score_of(logits, &mut order);
        }
    }

    fn save(&self, to: &mut State) {
        to.put("means", &[self.classes, self.classes], Arc::clone(&self.means));
        let tails: Vec<f64> = self.tails.iter().flat_map(|tail| [tail.least, tail.shape, tail.level]).collect();
        to.put("tails", &[self.classes, 3], tails);
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let distances = self.express_distances(graph, of.logits);
        let of_tails = |part: fn(&WeibullTail) -> f64| self.tails.iter().map(move |tail| part(tail) as f32);
        let least = graph.row(of_tails(|tail| tail.least));
        let beyond = graph.sub(distances, least);
        let (unit, furthest, one) = (graph.scale(beyond, 1.0 / ORIGIN), graph.scalar(-0.5), graph.scalar(1.0));
        let unit = graph.binary(Binary::Max, unit, furthest);
        let log = log_1p(graph, unit);
        let (shape, level) = (graph.row(of_tails(|tail| tail.shape)), graph.row(of_tails(|tail| tail.level)));
        let raised = graph.mul(log, shape);
        let exponent = graph.sub(raised, level);
        let power = graph.unary(Unary::Exp, exponent);
        let negative = graph.scale(power, -1.0);
        let outside = graph.unary(Unary::Exp, negative);
        let probability = graph.sub(one, outside);
        // `(alpha - i) / alpha` of the i-th largest, 0 from alpha on.
        let ranks = graph.push(Op::Ranks(of.logits));
        let (first, zero) = (graph.scalar(self.alpha as f64 - self.classes as f64 + 1.0), graph.scalar(0.0));
        let left = graph.add(ranks, first);
        let left = graph.binary(Binary::Max, left, zero);
        let weights = graph.scale(left, 1.0 / self.alpha as f64);
        let shares = graph.mul(weights, probability);
        let lost = graph.mul(of.logits, shares);
        let known = graph.sub(of.logits, lost);
        let (known, unknown) = (graph.reduce(Reduce::LogSumExp, known), graph.sum(lost));
        Some(graph.sub(known, unknown))
    }
}

/// `log(1 + x)` for small x, as `2 (z + z^3 / 3 + z^5 / 5)` with `z = x / (2 + x)`: adding x to 1 first would lose its digits in
/// f32, and the shape of a tail multiplies what is lost by thousands. Off by `2 z^7 / 7`: for x beyond a half, where
/// probabilities are 0 or 1, by one part in a thousand.
fn log_1p(graph: &mut Graph, x: Wire) -> Wire {
    let (two, one) = (graph.scalar(2.0), graph.scalar(1.0));
    let below = graph.add(x, two);
    let z = graph.div(x, below);
    let square = graph.mul(z, z);
    let (fifth, third) = (graph.scale(square, 0.2), graph.scalar(1.0 / 3.0));
    let inner = graph.add(fifth, third);
    let outer = graph.mul(inner, square);
    let series = graph.add(outer, one);
    let half = graph.mul(z, series);
    graph.scale(half, 2.0)
}

impl Recalibrated {
    /// `|f - m_c|` `[N, C]`.
    fn express_distances(&self, graph: &mut Graph, logits: Wire) -> Wire {
        let means: Vec<f32> = self.means.iter().map(|value| *value as f32).collect();
        let lengths: Vec<f32> = means
            .chunks_exact(self.classes)
            .map(|mean| mean.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() as f32)
            .collect();
        let products = graph.times(logits, [self.classes, self.classes], means);
        let (twice, squares, lengths) = (graph.scale(products, 2.0), graph.mul(logits, logits), graph.row(lengths));
        let length = graph.sum(squares);
        let both = graph.add(length, lengths);
        let (square, zero) = (graph.sub(both, twice), graph.scalar(0.0));
        let square = graph.binary(Binary::Max, square, zero);
        graph.unary(Unary::Sqrt, square)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The logarithm of the density of a Weibull distribution at 10000 + d - least, added up.
    fn likelihood(distances: &[f64], shape: f64, scale: f64) -> f64 {
        let least = distances.iter().copied().fold(f64::INFINITY, f64::min);
        let of_one = |distance: &f64| {
            let ratio = (ORIGIN + distance - least) / scale;
            (shape / scale).ln() + (shape - 1.0) * ratio.ln() - ratio.powf(shape)
        };
        distances.iter().map(of_one).sum()
    }

    #[test]
    fn tails_are_the_likeliest_weibull_distributions() {
        for distances in [
            (0..20).map(|i| 3.0 + f64::from(i * i) / 90.0).collect::<Vec<f64>>(),
            vec![1.0, 1.0, 1.5],
            (0..50).map(|i| 40.0 + f64::from(i % 7) * 11.0).collect(),
        ] {
            let tail = WeibullTail::fit(&distances).unwrap();
            // F = 1 - exp(-(x / scale)^shape).
            let scale = ORIGIN * (tail.level / tail.shape).exp();
            let best = likelihood(&distances, tail.shape, scale);
            for by in [0.9, 0.999, 1.001, 1.1] {
                assert!(likelihood(&distances, tail.shape * by, scale) < best, "shape {by}");
            }
            // The scale is told to one part in the shape.
            for by in [-1.0, -0.01, 0.01, 1.0] {
                assert!(likelihood(&distances, tail.shape, scale * (1.0 + by / tail.shape)) < best, "scale {by}");
            }
            for distance in [0.0, tail.least, distances[1], tail.least + 20.0] {
                let expected = 1.0 - (-((ORIGIN + distance - tail.least) / scale).powf(tail.shape)).exp();
                assert!((tail.probability(distance) - expected).abs() < 1e-9, "{distance}");
            }
        }
        assert!(WeibullTail::fit(&[2.0; 9]).is_none());
    }

    #[test]
    fn scores_are_the_odds_against_the_unknown_class() {
        let tails = vec![
            WeibullTail { least: 0.5, shape: 9000.0, level: 1.0 },
            WeibullTail { least: 0.2, shape: 7000.0, level: 0.5 },
            WeibullTail { least: 1.0, shape: 12000.0, level: 2.0 },
        ];
        let means: Arc<[f64]> = [4.0, 0.0, 1.0, 0.5, 5.0, 0.0, -1.0, 0.0, 6.0].into();
        for alpha in [1, 2, 5] {
            let fitted = Recalibrated { alpha, classes: 3, means: Arc::clone(&means), tails: tails.clone() };
            for logits in [[4.0f32, 0.5, 1.0], [1.0, 2.0, -3.0], [9.0, 1.0, 8.0], [0.0, 0.0, 0.0]] {
                let mut order = [0, 1, 2];
                order.sort_by(|a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(b.cmp(a)));
                let (mut known, mut unknown) = (0.0, 0.0);
                for (i, class) in order.into_iter().enumerate() {
                    let omega = (alpha as f64 - i as f64).max(0.0) / alpha as f64;
                    let d: f64 = (0..3).map(|c| (f64::from(logits[c]) - means[class * 3 + c]).powi(2)).sum();
                    let w = omega * tails[class].probability(d.sqrt());
                    known += (f64::from(logits[class]) * (1.0 - w)).exp();
                    unknown += f64::from(logits[class]) * w;
                }
                // P of the unknown class.
                let p = unknown.exp() / (known + unknown.exp());
                let found = fitted.score_of(&logits, &mut [0, 1, 2]);
                assert!((found - ((1.0 - p) / p).ln()).abs() < 1e-9, "{logits:?}: {found}");
            }
        }
    }
}
