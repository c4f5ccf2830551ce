//! ORA: the angles, as seen from the mean, between a feature and its projections on the decision boundaries.

use std::f64::consts::PI;
use std::sync::Arc;

use super::{Method, Score, Scorer, Views};
use crate::boundaries::Boundaries;
use crate::card::{Arguments, Card, Kind, Otherwise, Parameter, Value};
use crate::error::Result;
use crate::graph::{Binary, Graph, Reduce, Unary, Wire};
use crate::head::LinearHead;
use crate::kernel::Product;
use crate::sphere::distance;
use crate::state::{State, check_finite};
use crate::statistics::{By, Need, Needs, Space};
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `ora`, `ora(over=max)`.
///
/// With `z = h - mu`, `d = w_y - w_c` and `t = (f_y - f_c) / |d|^2`, the projection of h on the boundary to class c is
/// `h - t d`, and the angle between z and `z - t d` has
///
/// ```text
/// cosine of it, times |z| |z - t d|:   |z|^2 - t (z d)
/// sine of it, times the same:          t sqrt(|d|^2 |z|^2 - (z d)^2)
/// ```
///
/// so that all angles of an input follow from its logits, its C products `w_c z`, and distances of weights.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ora {
    over: Over,
}

/// What one number is made of the angles.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Over {
    Mean,
    Max,
}

const OVER: [(&str, Over); 2] = [("mean", Over::Mean), ("max", Over::Max)];

impl Method for Ora {
    const CARD: &'static Card = &Card {
        name: "ora",
        about: "angles, as seen from the mean, between a feature and its projections on the decision boundaries",
        formula: "mean_c (or max_c) angle(h - mu, x_c - mu) / pi, 0 for c = y; x_c = h - (f_y - f_c) d / |d|^2, \
                  d = w_y - w_c, mu the mean of the class means",
        paper: "Demirel, Fumero and Locatello, NeurIPS",
        year: 2025,
        cost: "C x D an input; the weights, and a row [C] for each class that is predicted, are kept",
        exports: true,
        example: "ora",
        parameters: &[Parameter {
            name: "over",
            about: "what is taken over the classes",
            kind: Kind::Choice(&["mean", "max"]),
            otherwise: Otherwise::Default(Value::Choice("mean")),
            bare: false,
        }],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        let word = given.choice("over");
        Ok(Self { over: OVER.iter().find(|(known, _)| *known == word).map_or(Over::Mean, |(_, over)| *over) })
    }

    fn arguments(&self) -> Arguments {
        let word = OVER.iter().find(|(_, known)| *known == self.over).map_or("", |(word, _)| word);
        Arguments::new(Self::CARD, [Some(Value::Choice(word))])
    }
}

impl Score for Ora {
    fn takes(&self) -> Takes {
        Takes::LOGITS.and(Takes::FEATURES)
    }

    fn needs(&self) -> Needs {
        Needs::of([Need::Classes(By::Label, Space::Features)])
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        let means = on.mean_of_each_class(By::Label)?;
        let classes = means.nrows() as f64;
        let centre: Vec<f64> = means.columns().into_iter().map(|column| column.sum() / classes).collect();
        Ok(Arc::new(Angles::new(self.over, centre.into(), on.head())?))
    }

    fn load(&self, state: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        let centre = state.take::<f64>("centre", &[Some(head.units())])?;
        check_finite("centre", &centre)?;
        Ok(Arc::new(Angles::new(self.over, centre, head)?))
    }
}

#[derive(Debug)]
struct Angles {
    over: Over,
    /// mu `[D]`.
    centre: Arc<[f64]>,
    head: LinearHead,
    boundaries: Boundaries,
    /// Gives `w_c (h - mu)` `[C]`.
    product: Product,
}

impl Angles {
    fn new(over: Over, centre: Arc<[f64]>, head: &LinearHead) -> Result<Self> {
        let weights: Vec<f32> = head.weight().iter().copied().collect();
        let product = Product::new(&weights, [head.classes(), head.units()], Some(&at_centre(head, &centre)))?;
        Ok(Self { over, centre, head: head.clone(), boundaries: Boundaries::new(head)?, product })
    }

    /// Of one input, from its logits, its products `w_c z` and `|z|`; y is the class that it is predicted as.
    fn score_one(&self, logits: &[f32], products: &[f32], length: f64, y: usize) -> f64 {
        let (own_logit, own_product) = (f64::from(logits[y]), f64::from(products[y]));
        let each = logits.iter().zip(products).zip(self.boundaries.of(y));
        let angles = each.map(|((logit, product), between)| {
            angle(own_logit - f64::from(*logit), own_product - f64::from(*product), *between, length)
        });
        match self.over {
            Over::Mean => angles.sum::<f64>() / logits.len() as f64,
            Over::Max => angles.fold(0.0, f64::max),
        }
    }
}

/// `-mu w_c` `[C]`.
fn at_centre(head: &LinearHead, centre: &[f64]) -> Vec<f32> {
    let product =
        |row: ndarray::ArrayView1<'_, f32>| -row.iter().zip(centre).map(|(w, c)| f64::from(*w) * c).sum::<f64>();
    head.weight().rows().into_iter().map(|row| product(row) as f32).collect()
}

/// The angle between z and `z - t d`, over pi, where `|z|` is `length`, `|d|` is `between`, `z d` is `along` and
/// `t = gap / |d|^2`; 0 where there is no boundary, or none away.
fn angle(gap: f64, along: f64, between: f64, length: f64) -> f64 {
    if between == 0.0 || gap <= 0.0 {
        return 0.0;
    }
    let t = gap / between.powi(2);
    // Rounding can take what is left of parallel vectors below 0.
    let across = ((between * length).powi(2) - along.powi(2)).max(0.0).sqrt();
    (t * across).atan2(length.powi(2) - t * along) / PI
}

impl Scorer for Angles {
    fn score(&self, rows: &Rows<'_>, workspace: &mut Workspace, out: &mut [f64]) {
        let Workspace { scratch, products, .. } = workspace;
        products.clear();
        products.resize(out.len() * rows.classes, 0.0);
        let _ = self.product.multiply(rows.all_features(), scratch, products);
        let inputs = rows.features().zip(rows.logits()).zip(rows.summaries()).zip(products.chunks_exact(rows.classes));
        for (score, (((row, logits), summary), products)) in out.iter_mut().zip(inputs) {
            *score = self.score_one(logits, products, distance(row, &self.centre), summary.class);
        }
    }

    fn save(&self, to: &mut State) {
        to.put("centre", &[self.centre.len()], Arc::clone(&self.centre));
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let (classes, units) = (self.head.classes(), self.head.units());
        let weights: Arc<[f32]> = self.head.weight().iter().copied().collect();
        let class = graph.reduce(Reduce::ArgMax, of.logits);
        let own_logit = graph.reduce(Reduce::Max, of.logits);
        let gaps = graph.sub(own_logit, of.logits);

        let centre = graph.row(self.centre.iter().map(|value| *value as f32));
        let z = graph.sub(of.features, centre);
        let own = graph.pick(class, [classes, units], Arc::clone(&weights));
        let own_parts = graph.mul(own, z);
        let (own_product, products) = (graph.sum(own_parts), graph.times(z, [classes, units], weights));
        let along = graph.sub(own_product, products);

        // t = gap / |d|^2, and 0 without a boundary.
        let inverse = graph.pick(class, [classes, classes], self.boundaries.table(|between| between.powi(-2)));
        let t = graph.mul(gaps, inverse);
        let moved = graph.mul(t, along);
        let parts = graph.mul(z, z);
        let square = graph.sum(parts);
        let dot = graph.sub(square, moved);
        // (t |d| |z|)^2 - (t z d)^2, with t |d|^2 = gap.
        let (whole, part) = (graph.mul(gaps, square), graph.mul(moved, along));
        let rest = graph.sub(whole, part);
        let across = graph.mul(t, rest);
        let none = graph.scalar(0.0);
        let across = graph.binary(Binary::Max, across, none);
        let angles = angles_of(graph, across, dot);
        // Neither without a boundary nor from the mean itself is there an angle.
        let reach = graph.mul(t, square);
        let away = graph.binary(Binary::Greater, reach, none);
        let angles = graph.mul(angles, away);
        Some(match self.over {
            Over::Mean => {
                let sum = graph.sum(angles);
                graph.scale(sum, 1.0 / classes as f64)
            }
            Over::Max => graph.reduce(Reduce::Max, angles),
        })
    }
}

/// The angle over pi of each pair of a square of its sine and a cosine, both times the same length. By the smaller of sine and
/// cosine: near 1 an arc cosine loses half of the digits.
fn angles_of(graph: &mut Graph, square_of_sine: Wire, cosine: Wire) -> Wire {
    let square_of_cosine = graph.mul(cosine, cosine);
    let squares = graph.add(square_of_sine, square_of_cosine);
    let (length, sine) = (graph.unary(Unary::Sqrt, squares), graph.unary(Unary::Sqrt, square_of_sine));
    let (one, half) = (graph.scalar(1.0), graph.scalar(0.5));
    let mut over_pi = |of: Wire| {
        let ratio = graph.ratio(of, length);
        let most = graph.binary(Binary::Min, ratio, one);
        let angle = graph.unary(Unary::Acos, most);
        graph.scale(angle, 1.0 / PI)
    };
    let (of_cosine, of_sine) = (over_pi(cosine), over_pi(sine));
    // Beyond a right angle what is missing to it is added.
    let none = graph.scalar(0.0);
    let acute = graph.binary(Binary::Greater, cosine, none);
    let twice = graph.scale(acute, 2.0);
    let sign = graph.sub(twice, one);
    let turn = graph.mul(sign, of_sine);
    let by_sine = graph.sub(half, turn);
    let magnitude = graph.unary(Unary::Abs, cosine);
    let steep = graph.binary(Binary::Greater, sine, magnitude);
    let flat = graph.sub(one, steep);
    let (first, second) = (graph.mul(steep, of_cosine), graph.mul(flat, by_sine));
    graph.add(first, second)
}

#[cfg(test)]
mod tests {
    use super::super::laws::{Naive, assert_scores, dot, minus};
    use super::PI;

    /// The angles over pi, with the projections made.
    fn angles(given: &Naive, h: &[f64]) -> Vec<f64> {
        let classes = given.weight.len();
        let means: Vec<Vec<f64>> = (0..classes).map(|class| given.mean(|_, label| label == class)).collect();
        let centre: Vec<f64> =
            (0..h.len()).map(|unit| means.iter().map(|mean| mean[unit]).sum::<f64>() / classes as f64).collect();
        let (f, y, z) = (given.logits(h), given.class(h), minus(h, &centre));
        let angle = |c: usize| {
            if c == y {
                return 0.0;
            }
            let d = minus(&given.weight[y], &given.weight[c]);
            let step = (f[y] - f[c]) / dot(&d, &d);
            let projected: Vec<f64> = h.iter().zip(&d).map(|(h, d)| h - step * d).collect();
            assert!((dot(&projected, &d) + given.bias[y] - given.bias[c]).abs() < 1e-9, "on the boundary");
            let seen = minus(&projected, &centre);
            (dot(&z, &seen) / (dot(&z, &z) * dot(&seen, &seen)).sqrt()).clamp(-1.0, 1.0).acos() / PI
        };
        (0..classes).map(angle).collect()
    }

    #[test]
    fn it_is_the_published_formula() {
        assert_scores("ora", |given, h| angles(given, h).iter().sum::<f64>() / given.weight.len() as f64);
        assert_scores("ora(over=max)", |given, h| angles(given, h).into_iter().fold(0.0, f64::max));
    }
}
