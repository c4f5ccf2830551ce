//! LINe: the energy of the units and weights that matter to the predicted class.

use std::sync::Arc;

use rayon::prelude::*;

use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card, Kind, Otherwise, Parameter, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Binary, Graph, Matrix, Op, Reduce, Wire};
use crate::head::LinearHead;
use crate::kernel::{Kernel, Summary};
use crate::mask::numpy_quantile_f64;
use crate::state::{State, check_finite};
use crate::statistics::{By, Need, Needs, Space};
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `line`, `line(clip=0.8, p_w=0.1, p_a=0.1)`. The authors have 0.9, 0.9 and 1 for CIFAR-10, 0.9, 0.1 and 1 for CIFAR-100, 0.1, 0.1
/// and 0.8 for ImageNet.
///
/// As in their code: a contribution is the gradient of the logit of a row's own class times the activation, averaged over the
/// class, which in the last layer is `w_c E_c[h]`; that mean is of unclipped features; thresholds are numpy's percentiles, and what
/// equals one is dropped, so that p = 0 drops the smallest. Whether a weight is kept depends on the predicted class: a cut a unit
/// for each class says so in place of a mask `[C, C, D]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    weights: f64,
    units: f64,
    clip: f64,
    by: By,
}

impl Method for Line {
    const CARD: &'static Card = &Card {
        name: "line",
        about: "energy of the units and weights that contribute most to the predicted class, activations clipped",
        formula: "logsumexp_k of b_k + sum_d W_kd x_d [|v_yd| W_kd > t_y] [v_yd > s_y], x = min(h, clip), y the class of W x + b; \
                  v_c = w_c E_c[h], t_c the quantile p_w of all |v_cd| W_kd, s_c the quantile p_a of v_c",
        paper: "Ahn, Park and Kim, CVPR, and its code",
        year: 2023,
        cost: "C times the units kept an input, beside the logits; a cut for each class and unit is kept",
        exports: true,
        example: "line",
        parameters: &[
            Parameter {
                name: "p_w",
                about: "fraction of weights dropped for each class",
                kind: Kind::Fraction,
                otherwise: Otherwise::Default(Value::Real(0.9)),
                bare: false,
            },
            Parameter {
                name: "p_a",
                about: "fraction of units dropped for each class",
                kind: Kind::Fraction,
                otherwise: Otherwise::Default(Value::Real(0.9)),
                bare: false,
            },
            Parameter {
                name: "clip",
                about: "activation to clip at, on the scale of the features at hand",
                kind: Kind::Real { least: 1e-9, most: 1e12 },
                otherwise: Otherwise::Default(Value::Real(1.0)),
                bare: false,
            },
            Parameter::BY,
        ],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        let by = By::of_word(given.choice("by"));
        Ok(Self { weights: given.real("p_w"), units: given.real("p_a"), clip: given.real("clip"), by })
    }

    fn arguments(&self) -> Arguments {
        let reals = [self.weights, self.units, self.clip].map(|value| Some(Value::Real(value)));
        Arguments::new(Self::CARD, reals.into_iter().chain([Some(Value::Choice(self.by.word()))]))
    }
}

impl Score for Line {
    fn takes(&self) -> Takes {
        Takes::FEATURES
    }

    fn needs(&self) -> Needs {
        Needs::of([Need::Classes(self.by, Space::Features)])
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        let (means, head) = (on.mean_of_each_class(self.by)?, on.head());
        let of_class = |class: usize| self.cuts(head, class, &means.row(class).to_vec());
        let cuts = (0..head.classes()).into_par_iter().map(of_class).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(Important::new(head, self.clip as f32, cuts.concat().into())?))
    }

    fn load(&self, state: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        let cuts = state.take::<f32>("cuts", &[Some(head.classes()), Some(head.units())])?;
        check_finite("cuts", &cuts)?;
        Ok(Arc::new(Important::new(head, self.clip as f32, cuts)?))
    }
}

/// The cut above which no weight is.
const NONE: f32 = f32::MAX;
/// The cut above which every weight is.
const ALL: f32 = f32::MIN;

impl Line {
    /// For an input of `class`, of each unit the cut that its kept weights are above `[D]`.
    fn cuts(&self, head: &LinearHead, class: usize, mean: &[f64]) -> Result<Vec<f32>> {
        let weight = head.weight();
        let contributions: Vec<f64> =
            weight.row(class).iter().zip(mean).map(|(weight, mean)| f64::from(*weight) * mean).collect();
        let least = numpy_quantile_f64(&contributions, self.units);
        let sizes: Vec<f64> = contributions.iter().map(|value| value.abs()).collect();
        let row = |weights: ndarray::ArrayView1<'_, f32>| -> Vec<f64> {
            weights.iter().zip(&sizes).map(|(weight, size)| size * f64::from(*weight)).collect()
        };
        let products: Vec<f64> = weight.rows().into_iter().flat_map(row).collect();
        let threshold = numpy_quantile_f64(&products, self.weights);
        let cut = |(value, size): (&f64, &f64)| if *value > least { cut(*size, threshold) } else { NONE };
        let cuts: Vec<f32> = contributions.iter().zip(&sizes).map(cut).collect();
        let keeps = |weights: ndarray::ArrayView1<'_, f32>| weights.iter().zip(&cuts).any(|(weight, cut)| weight > cut);
        if weight.rows().into_iter().any(keeps) {
            return Ok(cuts);
        }
        Err(Error::new(ErrorKind::Argument, format!("class {class} keeps no weight"))
            .argument("`line`")
            .expected("at least one weight of a kept unit for each class")
            .fix("its contributions are tied (constant or silent units?), or too much is dropped: lower p_w or p_a"))
    }
}

/// The largest u for which no weight up to u times `size` is above `threshold`, so that `size w > threshold` is `w > u`.
fn cut(size: f64, threshold: f64) -> f32 {
    if size == 0.0 {
        return if threshold < 0.0 { ALL } else { NONE };
    }
    let above = |weight: f32| size * f64::from(weight) > threshold;
    let mut cut = ((threshold / size) as f32).clamp(ALL, NONE);
    while above(cut) && cut > ALL {
        cut = cut.next_down();
    }
    while cut < NONE && !above(cut.next_up()) {
        cut = cut.next_up();
    }
    cut
}

#[derive(Debug)]
struct Important {
    head: Arc<LinearHead>,
    clip: f32,
    /// By predicted class and unit `[C, D]`.
    cuts: Arc<[f32]>,
    /// Predicts the class, of clipped features.
    kernel: Kernel,
    /// The weights `[D, C]`.
    turned: Vec<f32>,
}

impl Important {
    fn new(head: &LinearHead, clip: f32, cuts: Arc<[f32]>) -> Result<Self> {
        let kernel = Kernel::new(head, None, Some(clip))?;
        let turned = head.weight().t().iter().copied().collect();
        Ok(Self { head: Arc::new(head.clone()), clip, cuts, kernel, turned })
    }

    /// The logits of `row` through what is kept for `class`, into `sums` `[C]`.
    fn logits(&self, row: &[f32], class: usize, sums: &mut Vec<f64>) {
        sums.clear();
        sums.extend(self.head.bias().iter().map(|bias| f64::from(*bias)));
        let weights = self.turned.chunks_exact(self.head.classes());
        let cuts = &self.cuts[class * self.head.units()..];
        for ((value, cut), weights) in row.iter().zip(cuts).zip(weights).filter(|((_, cut), _)| **cut < NONE) {
            let value = f64::from(value.min(self.clip));
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum += if weight > cut { value * f64::from(*weight) } else { 0.0 };
            }
        }
    }
}

impl Scorer for Important {
    fn score(&self, rows: &Rows<'_>, workspace: &mut Workspace, out: &mut [f64]) {
        let mut summaries = vec![Summary::default(); out.len()];
        // Rows that are not finite are refused by who scores them.
        let _ = self.kernel.summarise(rows.all_features(), 1.0, &mut workspace.scratch, &mut summaries);
        let mut sums = Vec::with_capacity(rows.classes);
        for ((out, row), summary) in out.iter_mut().zip(rows.features()).zip(&summaries) {
            self.logits(row, summary.argmax as usize, &mut sums);
            let most = sums.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            *out = most + sums.iter().map(|sum| (sum - most).exp()).sum::<f64>().ln();
        }
    }

    fn save(&self, to: &mut State) {
        to.put("cuts", &[self.head.classes(), self.head.units()], Arc::clone(&self.cuts));
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let shape = [self.head.classes(), self.head.units()];
        let clip = graph.scalar(f64::from(self.clip));
        let clipped = graph.binary(Binary::Min, of.features, clip);
        let logits = graph.push(Op::Logits(clipped, Arc::clone(&self.head), None));
        let class = graph.reduce(Reduce::ArgMax, logits);
        let cuts = graph.pick(class, shape, Arc::clone(&self.cuts));
        let values = self.head.weight().iter().copied().collect();
        let sums = graph.push(Op::TimesAbove(clipped, cuts, Matrix { shape, values }));
        let bias = graph.row(self.head.bias().iter().copied());
        let sums = graph.add(sums, bias);
        Some(graph.reduce(Reduce::LogSumExp, sums))
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::{Naive, assert_scores, dot};
    use super::*;
    use crate::spec::Spec;
    use crate::statistics::Statistics;

    /// `numpy.percentile(values, 100 p)`.
    fn percentile(values: &[f64], p: f64) -> f64 {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let place = p * (sorted.len() - 1) as f64;
        let low = place.floor() as usize;
        sorted[low] + (place - place.floor()) * (sorted[(low + 1).min(sorted.len() - 1)] - sorted[low])
    }

    /// The authors' code, with its mask `[C, D]` for the predicted class.
    fn score(given: &Naive, h: &[f64], [p_w, p_a, clip]: [f64; 3], by_label: bool) -> f64 {
        let x: Vec<f64> = h.iter().map(|value| value.min(clip)).collect();
        let y = given.class(&x);
        let mean = given.mean(|row, label| if by_label { label == y } else { given.class(row) == y });
        let v: Vec<f64> = given.weight[y].iter().zip(&mean).map(|(w, m)| w * m).collect();
        let of_row = |w: &Vec<f64>| -> Vec<f64> { w.iter().zip(&v).map(|(w, v)| v.abs() * w).collect() };
        let matrix: Vec<Vec<f64>> = given.weight.iter().map(of_row).collect();
        let (t, s) = (percentile(&matrix.concat(), p_w), percentile(&v, p_a));
        let logit = |k: usize| {
            let kept = |d: usize| f64::from(u8::from(matrix[k][d] > t && v[d] > s));
            let masked: Vec<f64> = (0..x.len()).map(|d| given.weight[k][d] * kept(d)).collect();
            dot(&masked, &x) + given.bias[k]
        };
        (0..given.bias.len()).map(|k| logit(k).exp()).sum::<f64>().ln()
    }

    #[test]
    fn it_is_the_published_formula() {
        assert_scores("line", |given, h| score(given, h, [0.9, 0.9, 1.0], true));
        assert_scores("line(p_w=0.1, p_a=0.13, clip=0.8)", |given, h| score(given, h, [0.1, 0.13, 0.8], true));
        assert_scores("line(p_a=0.5, clip=100, by=prediction)", |given, h| score(given, h, [0.9, 0.5, 100.0], false));
    }

    #[test]
    fn a_cut_says_of_every_weight_whether_its_product_is_above_the_threshold() {
        let sizes = [0.0, 1e-30, 0.1, 0.3, 1.0 / 3.0, 7.0, 1e30];
        let thresholds = [-1e9, -0.3, -1e-20, 0.0, 1e-20, 0.1, 0.3 * f64::from(0.7f32), 1e9];
        for (size, threshold) in sizes.into_iter().flat_map(|size| thresholds.map(|threshold| (size, threshold))) {
            let cut = cut(size, threshold);
            assert!(cut.is_finite());
            let near = [
                cut.clamp(-3e38, 3e38),
                cut.next_up().min(3e38),
                cut.next_down().max(-3e38),
                0.7,
                0.3,
                0.0,
                -0.3,
                1e-30,
                -5.0,
                3e38,
            ];
            for weight in near {
                assert_eq!(weight > cut, size * f64::from(weight) > threshold, "{size} {threshold} {weight}");
            }
        }
    }

    #[test]
    fn silent_units_and_absent_classes_are_refused_by_name() {
        let head = Arc::new(LinearHead::from_rows(vec![1.0, 0.5, -0.5, 1.0], vec![0.0; 2], 2).unwrap());
        let spec: Spec = "line".parse().unwrap();
        let fit = |rows: [[f32; 2]; 2], labels: [i64; 2]| {
            let mut statistics = Statistics::of_head(&head, &spec.needs()).unwrap();
            statistics.update_labelled(ndarray::arr2(&rows).view(), &labels).unwrap();
            spec.fit(&head, &statistics)
        };
        assert!(fit([[1.0, 0.0], [0.0, 1.0]], [0, 1]).is_ok());
        let silent = fit([[1.0, 0.0], [0.0, 0.0]], [0, 1]).unwrap_err();
        assert!(silent.to_string().contains("class 1 keeps no weight"), "{silent}");
        let absent = fit([[1.0, 0.0], [0.0, 1.0]], [0, 0]).unwrap_err();
        assert!(absent.to_string().contains("no training row of class 1"), "{absent}");
    }
}
