//! Shares of values in equal bins, and how far those of one input are from the mean ones of training features.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Graph, Op, Unary, Wire};
use crate::state::{State, check_finite};

/// Equal bins over the span of some values: an edge belongs to the bin above it, and the largest value to the last bin.
#[derive(Debug, Clone)]
pub(crate) struct Bins {
    /// Ascending, one more than bins; the last is just above the largest value.
    edges: Arc<[f32]>,
    /// Bins for a unit of value.
    density: f32,
}

impl Bins {
    /// `count` bins over the span of values `what`.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] where there is no span, or none that f32 holds.
    pub(crate) fn spanning(values: Span, count: usize, what: &str) -> Result<Self> {
        let Span { least, largest } = values;
        let wide = f64::from(largest) - f64::from(least);
        if !(wide > 0.0 && wide.is_finite() && largest < f32::MAX) {
            return Err(Error::new(ErrorKind::Argument, format!("values from {least} to {largest}"))
                .tensor(what)
                .expected("training values that vary, all of sane size"));
        }
        let edge = |place: usize| (f64::from(least) + wide * place as f64 / count as f64) as f32;
        let edges: Vec<f32> = (0..count).map(edge).chain([largest.next_up()]).collect();
        Ok(Self::new(edges.into()))
    }

    fn new(edges: Arc<[f32]>) -> Self {
        let count = edges.len() - 1;
        let density = count as f64 / (f64::from(edges[count]) - f64::from(edges[0]));
        Self { edges, density: density as f32 }
    }

    pub(crate) fn len(&self) -> usize {
        self.edges.len() - 1
    }

    /// Adds the number of `values` in each bin to `counts`; those outside all bins are in none.
    pub(crate) fn add(&self, values: &[f32], counts: &mut [u32]) {
        let last = self.len() - 1;
        for value in values {
            // A guess that rounding can move by one: the edges decide.
            let mut bin = (((value - self.edges[0]) * self.density) as usize).min(last);
            while bin > 0 && *value < self.edges[bin] {
                bin -= 1;
            }
            while bin < last && *value >= self.edges[bin + 1] {
                bin += 1;
            }
            counts[bin] += u32::from(self.edges[bin] <= *value && *value < self.edges[bin + 1]);
        }
    }
}

/// The least and the largest of some values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    least: f32,
    largest: f32,
}

impl Span {
    pub(crate) fn of(values: &[f32]) -> Self {
        let none = Self { least: f32::INFINITY, largest: f32::NEG_INFINITY };
        values.iter().fold(none, |span, value| span.and(Self { least: *value, largest: *value }))
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self { least: self.least.min(other.least), largest: self.largest.max(other.largest) }
    }
}

/// The mean shares of training features, and how the histogram of an input is smoothed before it is compared with them.
#[derive(Debug)]
pub(crate) struct Histogram {
    bins: Bins,
    /// The share of training values in each bin.
    shares: Arc<[f64]>,
    /// Neighbouring bins that are averaged; beyond the ends the outermost bins repeat.
    smoothed: usize,
    /// What is added to every share.
    epsilon: f64,
    /// The shares with epsilon, adding up to one.
    expected: Vec<f64>,
}

impl Histogram {
    pub(crate) fn new(bins: Bins, shares: Arc<[f64]>, smoothed: usize, epsilon: f64) -> Self {
        let sum: f64 = shares.iter().map(|share| share + epsilon).sum();
        let expected = shares.iter().map(|share| (share + epsilon) / sum).collect();
        Self { bins, shares, smoothed, epsilon, expected }
    }

    pub(crate) fn bins(&self) -> &Bins {
        &self.bins
    }

    /// `sum_j (q_j - p_j) (log q_j - log p_j)`: the divergences of p, the expected shares, and q, those of `values` values of
    /// which each bin holds `counts`, from each other, added up.
    pub(crate) fn divergence(&self, counts: &[u32], values: usize) -> f64 {
        let scale = 1.0 / (values * self.smoothed) as f64;
        let shares: Vec<f64> = self.sums(counts).map(|sum| sum as f64 * scale + self.epsilon).collect();
        let all: f64 = shares.iter().sum();
        let term = |(share, expected): (&f64, &f64)| (share / all - expected) * (share / all / expected).ln();
        shares.iter().zip(&self.expected).map(term).sum()
    }

    /// Of each bin, the place of the first that is averaged with it, which may be before all bins: torch's `padding="same"`.
    fn first(&self, bin: usize) -> isize {
        bin as isize - (self.smoothed as isize - 1) / 2
    }

    /// The bin at `place`, which may be beyond the ends.
    fn at(&self, place: isize) -> usize {
        place.clamp(0, self.bins.len() as isize - 1) as usize
    }

    /// The sum of the counts around each bin.
    fn sums<'a>(&'a self, counts: &'a [u32]) -> impl Iterator<Item = u64> + 'a {
        let count = |place: isize| u64::from(counts[self.at(place)]);
        let mut sum: u64 = (0..self.smoothed as isize).map(|place| count(self.first(0) + place)).sum();
        (0..counts.len()).map(move |bin| {
            let now = sum;
            sum = sum + count(self.first(bin) + self.smoothed as isize) - count(self.first(bin));
            now
        })
    }

    pub(crate) fn save(&self, to: &mut State) {
        to.put("edges", &[self.bins.edges.len()], Arc::clone(&self.bins.edges));
        to.put("shares", &[self.shares.len()], Arc::clone(&self.shares));
    }

    pub(crate) fn load(state: &mut State, bins: usize, smoothed: usize, epsilon: f64) -> Result<Self> {
        let edges = state.take::<f32>("edges", &[Some(bins + 1)])?;
        let shares = state.take::<f64>("shares", &[Some(bins)])?;
        check_finite("edges", &edges)?;
        check_finite("shares", &shares)?;
        let wrong = |tensor: &str, expected: &str| {
            Error::new(ErrorKind::Malformed, "other values").tensor(tensor).expected(expected)
        };
        if !edges.is_sorted() || edges[0] >= edges[bins] {
            return Err(wrong("edges", "ascending values"));
        }
        match shares.iter().all(|share| (0.0..=1.0).contains(share)) {
            true => Ok(Self::new(Bins::new(edges), shares, smoothed, epsilon)),
            false => Err(wrong("shares", "values from 0 to 1")),
        }
    }

    /// What [`Histogram::divergence`] gives for `values` `[N, K]`, as operators.
    pub(crate) fn express(&self, graph: &mut Graph, values: Wire, count: usize) -> Wire {
        let bins = self.bins.len();
        let at_least = graph.push(Op::CountAtLeast(values, Arc::clone(&self.bins.edges)));
        let shares = graph.times(at_least, [bins, bins + 1], self.smoothing(count));
        let (epsilon, expected) = (graph.scalar(self.epsilon), graph.row(self.expected.iter().map(|p| *p as f32)));
        let shares = graph.add(shares, epsilon);
        let all = graph.sum(shares);
        let shares = graph.div(shares, all);
        let (difference, ratio) = (graph.sub(shares, expected), graph.div(shares, expected));
        let log = graph.unary(Unary::Log, ratio);
        let terms = graph.mul(difference, log);
        graph.sum(terms)
    }

    /// What makes smoothed shares of the numbers of values that are at least each edge, `[bins, bins + 1]`.
    fn smoothing(&self, count: usize) -> Vec<f32> {
        let edges = self.bins.edges.len();
        let mut matrix = vec![0.0; self.bins.len() * edges];
        for (bin, row) in matrix.chunks_exact_mut(edges).enumerate() {
            for place in 0..self.smoothed as isize {
                let within = self.at(self.first(bin) + place);
                row[within] += 1.0;
                row[within + 1] -= 1.0;
            }
        }
        let scale = 1.0 / (count * self.smoothed) as f64;
        matrix.into_iter().map(|value: f64| (value * scale) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bins(values: &[f32], count: usize) -> Bins {
        Bins::spanning(Span::of(values), count, "values").unwrap()
    }

    #[test]
    fn every_value_of_the_span_is_in_one_bin_and_no_other_in_any() {
        for (least, largest) in [(0.0f32, 1.0), (-3.7, 9.1), (1000.0, 1000.001), (0.0, 1e-40), (-1e30, 3.0)] {
            let bins = bins(&[least, largest], 10);
            let values: Vec<f32> =
                (0..=1000).map(|i| (least + (largest - least) * i as f32 / 1000.0).min(largest)).collect();
            for value in values {
                let mut counts = [0; 10];
                bins.add(&[value], &mut counts);
                let expected: Vec<u32> =
                    (0..10).map(|bin| u32::from(bins.edges[bin] <= value && value < bins.edges[bin + 1])).collect();
                assert_eq!(counts[..], expected[..], "{value}");
                assert_eq!(counts.iter().sum::<u32>(), 1, "{value}");
            }
            let mut counts = [0; 10];
            bins.add(&[least.next_down(), largest.next_up(), f32::INFINITY, f32::NEG_INFINITY, f32::NAN], &mut counts);
            assert_eq!(counts, [0; 10]);
        }
        for constant in [&[2.0; 3][..], &[], &[0.0, f32::INFINITY], &[f32::NAN]] {
            let error = Bins::spanning(Span::of(constant), 10, "values").unwrap_err();
            assert!(error.to_string().contains("that vary"), "{error}");
        }
    }

    #[test]
    fn neighbours_are_averaged_as_torch_pads() {
        // torch.nn.functional.pad(x, (left, right), mode="replicate") with left = (k - 1) // 2, and the mean of k.
        let counts = [8, 0, 0, 4, 0];
        for (smoothed, expected) in [
            (1, [8, 0, 0, 4, 0]),
            (2, [8, 0, 4, 4, 0]),
            (3, [16, 8, 4, 4, 4]),
            (4, [16, 12, 4, 4, 4]),
            (5, [24, 20, 12, 4, 4]),
        ] {
            let histogram = Histogram::new(bins(&[0.0, 1.0], 5), vec![0.2; 5].into(), smoothed, 0.01);
            assert_eq!(histogram.sums(&counts).collect::<Vec<_>>(), expected, "{smoothed}");
        }
    }

    #[test]
    fn what_is_as_expected_diverges_by_nothing() {
        let histogram = Histogram::new(bins(&[0.0, 1.0], 4), vec![0.5, 0.25, 0.25, 0.0].into(), 1, 0.01);
        assert_eq!(histogram.divergence(&[4, 2, 2, 0], 8), 0.0);
        assert!(histogram.divergence(&[2, 2, 2, 2], 8) > 0.1);
        // Values outside all bins are missing from every share.
        let p = [0.51 / 1.04, 0.26 / 1.04, 0.26 / 1.04, 0.01 / 1.04f64];
        let q = [0.135 / 0.29, 0.135 / 0.29, 0.01 / 0.29, 0.01 / 0.29f64];
        let expected: f64 = (0..4).map(|bin| (q[bin] - p[bin]) * (q[bin].ln() - p[bin].ln())).sum();
        assert!((histogram.divergence(&[1, 1, 0, 0], 8) - expected).abs() < 1e-12);
    }
}
