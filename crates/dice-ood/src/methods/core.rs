//! CORE: the energy, and the direction of what the head cannot see.

use std::sync::Arc;

use ndarray::Array1;

use super::energy::energy_of;
use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card, Parameter, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Binary, Graph, Matrix, Op, Reduce, Wire};
use crate::head::LinearHead;
use crate::kernel::{Product, Scratch};
use crate::linalg::Axes;
use crate::sphere::{norm, to_sphere};
use crate::state::{State, check_finite};
use crate::statistics::{By, ClassMean, Need, Needs, Space};
use crate::training::Training;
use crate::views::{LogitSummary, Rows, Takes, Workspace};

/// `core`, `core(by=prediction)`. Where the head has as many classes as units its weights span everything, and the residual is
/// about the weights of the predicted class alone: about those of their own class for the mean of a class.
#[derive(Debug, Clone, Copy)]
pub(super) struct Core {
    by: By,
}

/// Training rows that the two scales rest on, at most.
const ROWS: usize = 50_000;

impl Method for Core {
    const CARD: &'static Card = &Card {
        name: "core",
        about: "the energy, and how near to a class the part of a feature is that the head cannot see",
        formula: "z(logsumexp f) + z(max_c cos(r(h), E_c[r])), r(h) = h less its projection on the span of W, \
                  on w_y alone where C >= D, z(s) = (s - mean) / sd over training rows",
        paper: "arXiv 2603.18290",
        year: 2026,
        cost: "D D an input, D C where C >= D; the fit takes D^3; a basis [D - C, D] and C directions are kept",
        exports: true,
        example: "core",
        parameters: &[Parameter::BY],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self { by: By::of_word(given.choice("by")) })
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [Some(Value::Choice(self.by.word()))])
    }
}

impl Score for Core {
    fn takes(&self) -> Takes {
        Takes::summary(1.0).and(Takes::FEATURES)
    }

    fn needs(&self) -> Needs {
        Needs::of([Need::Classes(self.by, Space::Features)]).and(Needs::bank(ROWS))
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        let classes = on.class_means(self.by, Space::Features)?;
        let residual = Residual::fit(on.head())?;
        let directions = classes.iter().map(|class| residual.direction(class)).collect::<Result<Vec<_>>>()?.concat();
        let mut unseen = Unseen::new(residual, directions.into(), [Scale::UNIT; 2])?;
        unseen.scales = scales(on, &unseen)?;
        Ok(Arc::new(unseen))
    }

    fn load(&self, state: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        let residual = Residual::load(state, head)?;
        let directions = state.take::<f32>("directions", &[None, Some(residual.parts())])?;
        let scales = state.take::<f64>("scales", &[Some(4)])?;
        check_finite("directions", &directions)?;
        check_finite("scales", &scales)?;
        if scales[1] <= 0.0 || scales[3] <= 0.0 {
            return Err(Error::new(ErrorKind::Malformed, "a deviation that is not above 0").tensor("scales"));
        }
        let scale = |at: usize| Scale { mean: scales[at], deviation: scales[at + 1] };
        Ok(Arc::new(Unseen::new(residual, directions, [scale(0), scale(2)])?))
    }
}

/// What is left of a feature without what the head sees of it.
#[derive(Debug)]
enum Residual {
    /// The coordinates outside the span of the weights.
    Outside { basis: Arc<[f32]>, product: Product, units: usize },
    /// What is orthogonal to the weights of a class, which are here `[C, D]`, of length 1.
    OfClass { weights: Arc<[f32]>, units: usize },
}

impl Residual {
    fn fit(head: &LinearHead) -> Result<Self> {
        let units = head.units();
        if head.classes() >= units {
            return Ok(Self::of_class(head));
        }
        let weight = head.weight().mapv(f64::from);
        let axes = Axes::of(&weight.t().dot(&weight))?;
        let least = units as f64 * f64::EPSILON * axes.values[0];
        let rank = axes.values.iter().take_while(|value| **value > least).count().min(head.classes());
        let basis = axes.vectors.slice(ndarray::s![rank.., ..]).iter().map(|part| *part as f32).collect();
        Self::outside(basis, units)
    }

    fn of_class(head: &LinearHead) -> Self {
        let mut weights: Vec<f32> = head.weight().iter().copied().collect();
        weights.chunks_exact_mut(head.units()).for_each(to_sphere);
        Self::OfClass { weights: weights.into(), units: head.units() }
    }

    fn outside(basis: Arc<[f32]>, units: usize) -> Result<Self> {
        let product = Product::new(&basis, [basis.len() / units, units], None)?;
        Ok(Self::Outside { basis, product, units })
    }

    fn load(state: &mut State, head: &LinearHead) -> Result<Self> {
        if head.classes() >= head.units() {
            return Ok(Self::of_class(head));
        }
        let basis = state.take::<f32>("basis", &[None, Some(head.units())])?;
        check_finite("basis", &basis)?;
        Self::outside(basis, head.units())
    }

    fn save(&self, to: &mut State) {
        if let Self::Outside { basis, product, units } = self {
            to.put("basis", &[product.outputs(), *units], Arc::clone(basis));
        }
    }

    /// Values of a residual.
    fn parts(&self) -> usize {
        match self {
            Self::Outside { product, .. } => product.outputs(),
            Self::OfClass { units, .. } => *units,
        }
    }

    /// The direction of the mean residual of a class.
    fn direction(&self, class: &ClassMean) -> Result<Vec<f32>> {
        let dot = |row: &[f32]| row.iter().zip(&class.mean).map(|(a, b)| f64::from(*a) * b).sum::<f64>();
        let residual: Array1<f64> = match self {
            Self::Outside { basis, units, .. } => basis.chunks_exact(*units).map(dot).collect(),
            Self::OfClass { weights, units } => {
                let weight = &weights[class.class as usize * units..][..*units];
                let along = dot(weight);
                class.mean.iter().zip(weight).map(|(value, weight)| value - along * f64::from(*weight)).collect()
            }
        };
        let length = residual.dot(&residual).sqrt();
        // What f32 weights leave of a mean that lies in their span is rounding.
        if length > 1e-6 * class.mean.dot(&class.mean).sqrt() {
            return Ok(residual.iter().map(|part| (part / length) as f32).collect());
        }
        Err(Error::new(ErrorKind::Argument, format!("class {} with a mean that the head sees whole", class.class))
            .tensor("class means of `core`")
            .expected("a part that is orthogonal to the weights"))
    }

    /// Residuals `[n, parts]` of `rows` `[n, D]`, for rows that are predicted as these classes.
    fn of(&self, rows: &[f32], classes: impl Iterator<Item = usize>, scratch: &mut Scratch, out: &mut Vec<f32>) {
        out.clear();
        match self {
            Self::Outside { product, units, .. } => {
                out.resize(rows.len() / units * product.outputs(), 0.0);
                let _ = product.multiply(rows, scratch, out);
            }
            Self::OfClass { weights, units } => {
                for (row, class) in rows.chunks_exact(*units).zip(classes) {
                    let weight = &weights[class * units..][..*units];
                    let along: f64 = row.iter().zip(weight).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    let left = |(value, weight): (&f32, &f32)| f64::from(*value) - along * f64::from(*weight);
                    out.extend(row.iter().zip(weight).map(|pair| left(pair) as f32));
                }
            }
        }
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Wire {
        match self {
            Self::Outside { basis, product, units } => {
                graph.times(of.features, [product.outputs(), *units], Arc::clone(basis))
            }
            Self::OfClass { weights, units } => {
                let predicted = graph.reduce(Reduce::ArgMax, of.logits);
                let shape = [weights.len() / units, *units];
                let weight = graph.push(Op::Pick(predicted, Matrix { shape, values: Arc::clone(weights) }));
                let products = graph.mul(of.features, weight);
                let along = graph.sum(products);
                let along = graph.mul(along, weight);
                graph.sub(of.features, along)
            }
        }
    }
}

/// The mean and standard deviation that bring a score to the scale of others.
#[derive(Debug, Clone, Copy)]
struct Scale {
    mean: f64,
    deviation: f64,
}

impl Scale {
    const UNIT: Self = Self { mean: 0.0, deviation: 1.0 };

    /// Of values, each as often as its count says.
    fn of(name: &str, values: &[f64], counts: &[u64]) -> Result<Self> {
        let mean_of = |value: &dyn Fn(f64) -> f64| {
            let pairs = values.iter().zip(counts).map(|(x, count)| (value(*x) * *count as f64, *count as f64));
            let (sum, rows) = pairs.fold((0.0, 0.0), |sums, pair| (sums.0 + pair.0, sums.1 + pair.1));
            sum / rows
        };
        let mean = mean_of(&|x| x);
        let deviation = mean_of(&|x| (x - mean).powi(2)).sqrt();
        if deviation > 1e-12 * mean.abs() && deviation.is_finite() {
            return Ok(Self { mean, deviation });
        }
        Err(Error::new(ErrorKind::Argument, format!("{name} {mean} for every training row"))
            .argument("scales of `core`")
            .expected("training rows that differ"))
    }

    fn apply(self, value: f64) -> f64 {
        (value - self.mean) / self.deviation
    }

    fn express(self, graph: &mut Graph, value: Wire) -> Wire {
        let mean = graph.scalar(self.mean);
        let centred = graph.sub(value, mean);
        graph.scale(centred, 1.0 / self.deviation)
    }
}

/// The scales of the energy and of the cosine on training rows.
fn scales(on: &Training<'_>, of: &Unseen) -> Result<[Scale; 2]> {
    let bank = on.statistics().bank()?.first(ROWS);
    let (mut energies, mut cosines) = (Vec::new(), Vec::new());
    let mut workspace = Workspace::default();
    on.visit_bank(&bank, |rows, counts, logits| {
        let summaries: Vec<LogitSummary> = logits.chunks_exact(on.head().classes()).map(LogitSummary::of).collect();
        energies.extend(summaries.iter().map(|summary| summary.energy(1.0)));
        let mut found = vec![0.0; counts.len()];
        of.cosines(rows, summaries.iter().map(|summary| summary.class), &mut workspace, &mut found);
        cosines.extend(found);
    })?;
    Ok([Scale::of("an energy of", &energies, &bank.counts)?, Scale::of("a cosine of", &cosines, &bank.counts)?])
}

#[derive(Debug)]
struct Unseen {
    residual: Residual,
    /// Of the mean residuals `[M, parts]`, of length 1.
    directions: Arc<[f32]>,
    product: Product,
    /// Of the energy and of the cosine.
    scales: [Scale; 2],
}

impl Unseen {
    fn new(residual: Residual, directions: Arc<[f32]>, scales: [Scale; 2]) -> Result<Self> {
        let parts = residual.parts();
        let product = Product::new(&directions, [directions.len() / parts, parts], None)?;
        Ok(Self { residual, directions, product, scales })
    }

    /// `max_c cos(r(h), E_c[r])` of each row; 0 where nothing is left of a row.
    fn cosines(&self, rows: &[f32], classes: impl Iterator<Item = usize>, workspace: &mut Workspace, out: &mut [f64]) {
        let Workspace { scratch, rows: residuals, .. } = workspace;
        self.residual.of(rows, classes, scratch, residuals);
        out.fill(f64::NEG_INFINITY);
        let _ = self.product.for_each_slab(residuals, scratch, |slab| {
            let values = slab.values.chunks_exact(slab.outputs.len());
            for (out, values) in out[slab.rows.clone()].iter_mut().zip(values) {
                *out = values.iter().map(|value| f64::from(*value)).fold(*out, f64::max);
            }
        });
        for (out, residual) in out.iter_mut().zip(residuals.chunks_exact(self.residual.parts())) {
            *out /= norm(residual).max(f64::from(f32::MIN_POSITIVE));
        }
    }
}

impl Scorer for Unseen {
    fn score(&self, rows: &Rows<'_>, workspace: &mut Workspace, out: &mut [f64]) {
        let classes = rows.summaries().map(|summary| summary.class);
        self.cosines(rows.all_features(), classes, workspace, out);
        let [energy, cosine] = self.scales;
        for (out, summary) in out.iter_mut().zip(rows.summaries()) {
            *out = energy.apply(summary.energy(1.0)) + cosine.apply(*out);
        }
    }

    fn save(&self, to: &mut State) {
        let parts = self.residual.parts();
        self.residual.save(to);
        to.put("directions", &[self.directions.len() / parts, parts], Arc::clone(&self.directions));
        to.put(
            "scales",
            &[4],
            self.scales.iter().flat_map(|scale| [scale.mean, scale.deviation]).collect::<Vec<f64>>(),
        );
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let [energy_scale, cosine_scale] = self.scales;
        let residual = self.residual.express(graph, of);
        let parts = self.residual.parts();
        let products = graph.times(residual, [self.directions.len() / parts, parts], Arc::clone(&self.directions));
        let most = graph.reduce(Reduce::Max, products);
        let (length, least) = (graph.norm(residual), graph.scalar(f64::from(f32::MIN_POSITIVE)));
        let length = graph.binary(Binary::Max, length, least);
        let cosine = graph.div(most, length);
        let energy = energy_of(graph, of.logits, 1.0);
        let (energy, cosine) = (energy_scale.express(graph, energy), cosine_scale.express(graph, cosine));
        Some(graph.add(energy, cosine))
    }
}
