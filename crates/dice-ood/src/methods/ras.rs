//! RAS: every input gets the magnitudes of the mean training input, and keeps only their order.

use std::sync::Arc;

use super::{Method, Shaper, Shaping};
use crate::card::{Arguments, Card};
use crate::error::Result;
use crate::graph::{Graph, Op, Wire};
use crate::state::{State, check_finite};
use crate::statistics::{Need, Needs};
use crate::training::Training;
use crate::views::Workspace;

/// `ras`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ras;

impl Method for Ras {
    const CARD: &'static Card = &Card {
        name: "ras",
        about: "give each input the magnitudes of the mean training input, in the input's own order",
        formula: "the i-th smallest value of h becomes c_i, of equal values the earlier counting as smaller; c the mean over \
                  training rows of the row sorted ascending",
        paper: "Ranked activation shift, ECCV, arXiv 2604.08572",
        year: 2026,
        cost: "D log D an input; c [D] is kept",
        exports: true,
        example: "ras | energy",
        parameters: &[],
    };

    fn from_arguments(_: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self)
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [])
    }
}

impl Shaping for Ras {
    fn needs(&self) -> Needs {
        Needs::of([Need::SortedMean])
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Shaper>> {
        let profile = on.statistics().sorted_mean_activation()?;
        Ok(Arc::new(Profile(profile.iter().map(|value| *value as f32).collect())))
    }

    fn load(&self, state: &mut State, units: usize) -> Result<Arc<dyn Shaper>> {
        let profile = state.take::<f32>("profile", &[Some(units)])?;
        check_finite("profile", &profile)?;
        Ok(Arc::new(Profile(profile)))
    }
}

/// c `[D]`, ascending.
#[derive(Debug)]
struct Profile(Arc<[f32]>);

impl Shaper for Profile {
    fn shape(&self, row: &mut [f32], workspace: &mut Workspace) {
        let places = &mut workspace.places;
        places.clear();
        // Zeros of either sign are equal.
        places.extend(row.iter().zip(0..).map(|(value, place)| (value + 0.0, place)));
        places.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for ((_, place), value) in places.iter().zip(&*self.0) {
            row[*place as usize] = *value;
        }
    }

    fn save(&self, to: &mut State) {
        to.put("profile", &[self.0.len()], Arc::clone(&self.0));
    }

    fn express(&self, graph: &mut Graph, features: Wire) -> Option<Wire> {
        let ranks = graph.push(Op::Ranks(features));
        Some(graph.pick(ranks, [self.0.len(), 1], Arc::clone(&self.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::assert_shapes;
    use super::*;
    use crate::statistics::Statistics;

    #[test]
    fn it_is_the_published_formula() {
        assert_shapes("ras", |given, h| {
            let mut profile = vec![0.0; h.len()];
            for row in &given.rows {
                let mut sorted = row.clone();
                sorted.sort_by(f64::total_cmp);
                profile.iter_mut().zip(&sorted).for_each(|(sum, value)| *sum += value / given.rows.len() as f64);
            }
            let rank = |place: usize| (0..h.len()).filter(|other| (h[*other], *other) < (h[place], place)).count();
            (0..h.len()).map(|place| profile[rank(place)]).collect()
        });
    }

    #[test]
    fn the_mean_of_sorted_rows_does_not_depend_on_blocks_or_threads() {
        let rows = ndarray::Array2::from_shape_fn((300, 70), |(row, unit)| ((row * 31 + unit * 17) % 101) as f32 * 0.1);
        let needs = Needs::of([Need::SortedMean]);
        let mut whole = Statistics::new(70, &needs);
        whole.update(rows.view()).unwrap();
        let mut blocks = Statistics::new(70, &needs);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        pool.install(|| rows.axis_chunks_iter(ndarray::Axis(0), 7).for_each(|block| blocks.update(block).unwrap()));
        assert_eq!(whole, blocks);
    }
}
