//! How a matrix is laid out in memory, chosen from its shape and density, and the proof that the layout is sound.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;

use crate::head::LinearHead;

/// Columns that are transposed together.
pub(super) const CHUNK: usize = 16;
/// Classes of a dense tile that share a load.
pub(super) const GROUP: usize = 6;
/// Values of a transposed tile: 32 KiB of the first-level cache.
pub(super) const TILE: usize = 8192;
/// A tile that keeps a larger share of its weights is packed dense. Measured on random masks: at 0.8 the sparse loop
/// still ties with the dense one, as most weights then have a partner to share a load with.
const DENSE: f64 = 0.8;
/// Classes that are looked at for the best partner of one.
const CANDIDATES: usize = 128;

/// The layout of a masked head.
#[derive(Debug, Clone)]
pub(super) enum Packing {
    /// Few classes: rows of features are multiplied without being transposed.
    ByRows(RowWeights),
    /// Inputs as lanes, units in tiles.
    Tiles(Vec<Tile>),
}

/// All weights of a few classes, in vectors along the units; what is not kept is zero.
#[derive(Debug, Clone)]
pub(super) struct RowWeights {
    /// Values of a vector.
    pub(super) width: usize,
    /// Classes that share a load of features.
    pub(super) group: usize,
    /// By group, then chunk of `width` units, then class of the group: `width` weights. The last chunk of units steps
    /// back to be whole; weights that it shares with the one before are zero.
    pub(super) weights: Vec<f32>,
}

/// Some units, and the weights that all classes keep of them.
#[derive(Debug, Clone)]
pub(super) struct Tile {
    /// Its columns of the features, kept or not: tiles partition them.
    pub(super) columns: Range<usize>,
    /// How many of them keep a weight.
    pub(super) units: usize,
    /// How its columns are transposed.
    pub(super) chunks: Vec<Chunk>,
    pub(super) weights: Weights,
}

/// [`CHUNK`] neighbouring columns, all within a row where rows are that long.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    pub(super) column: usize,
    /// The line of the transposed tile that each column is written to; columns without a kept weight are written to
    /// one spare line behind the tile.
    pub(super) places: [u16; CHUNK],
    /// Whether any of the columns keeps a weight.
    pub(super) kept: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Weights {
    /// Kept weights, two classes side by side: the steps of all pairs, one pair after the other.
    Sparse { pairs: Vec<Pair>, shared: Vec<Shared>, apart: Vec<Apart> },
    /// All weights of six classes for each unit of the tile, one six after the other.
    Dense(Vec<[f32; GROUP]>),
}

/// Two classes that advance together: over units that both keep, then over units that only one of them keeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) classes: [u32; 2],
    pub(super) shared: u32,
    pub(super) apart: u32,
}

/// The weights of both classes for one unit: one load for two products.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shared {
    pub(super) weights: [f32; 2],
    /// Place of the unit in the transposed tile.
    pub(super) place: u32,
}

/// A weight of each class for units of their own. The class that has fewer ends on zero weights.
#[derive(Debug, Clone, Copy)]
pub(super) struct Apart {
    pub(super) weights: [f32; 2],
    /// Places of their units in the transposed tile.
    pub(super) places: [u16; 2],
}

impl Packing {
    /// Lays out the weights for which `kept(class, unit)`, for blocks of `lanes` inputs, or vectors of `width` values
    /// and `group` classes.
    pub(super) fn new(
        head: &LinearHead,
        kept: &dyn Fn(usize, usize) -> bool,
        lanes: usize,
        (width, group): (usize, usize),
    ) -> Self {
        let layout = Self::choose(head, kept, lanes, (width, group));
        layout.check(head.weight().dim(), lanes, (width, group));
        layout
    }

    fn choose(
        head: &LinearHead,
        kept: &dyn Fn(usize, usize) -> bool,
        lanes: usize,
        (width, group): (usize, usize),
    ) -> Self {
        let (classes, all) = head.weight().dim();
        let mut counts = vec![0; all];
        for class in 0..classes {
            for (unit, count) in counts.iter_mut().enumerate() {
                *count += usize::from(kept(class, unit));
            }
        }
        let total: usize = counts.iter().sum();
        // Cycles an input, from measurements: transposing and the products of a tile, against products with all weights
        // and the sums across vectors at their end.
        let each = if total as f64 > DENSE * (classes * all) as f64 { 2.2 } else { 2.7 };
        let by_tiles = 0.7 * all as f64 + each * total as f64 / lanes as f64;
        let by_rows = classes.next_multiple_of(group) as f64 * (0.75 * all as f64 / width as f64 + 2.0);
        if all >= width && by_rows < by_tiles {
            return Self::ByRows(RowWeights::new(head, kept, width, group));
        }
        let active: Vec<usize> = (0..all).filter(|unit| counts[*unit] > 0).collect();
        let tiles = active.len().div_ceil(TILE / lanes).max(1);
        let size = active.len().div_ceil(tiles).max(1);
        let mut tiles: Vec<Tile> = Vec::with_capacity(tiles);
        for units in active.chunks(size) {
            let start = tiles.last().map_or(0, |tile| tile.columns.end);
            let end = units.last().map_or(start, |last| last + 1);
            tiles.push(Tile::new(head, kept, units, start..if units.last() == active.last() { all } else { end }));
        }
        if tiles.is_empty() {
            tiles.push(Tile::new(head, kept, &[], 0..all));
        }
        Self::Tiles(tiles)
    }

    /// Asserts conditions (3) to (6) of [`generic`](super::generic) for rows of `units` values and blocks of at most
    /// `lanes` inputs, or vectors of `width` values and `group` classes.
    fn check(&self, (classes, units): (usize, usize), lanes: usize, (width, group): (usize, usize)) {
        match self {
            Self::ByRows(rows) => {
                let weights = classes.div_ceil(group) * group * units.div_ceil(width) * width;
                assert!(rows.width == width && rows.group == group, "(6): vectors of this level");
                assert!(units >= width && rows.weights.len() == weights, "(6): whole vectors and groups");
            }
            Self::Tiles(tiles) => {
                let mut end = 0;
                for tile in tiles {
                    assert!(tile.columns.start == end, "(3): tiles follow each other");
                    tile.check(classes, units, lanes);
                    end = tile.columns.end;
                }
                assert!(end == units, "(3): tiles cover the units");
            }
        }
    }
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByRows(rows) => write!(f, "by rows, vectors of {}", rows.width),
            Self::Tiles(tiles) => {
                let dense = tiles.iter().filter(|tile| matches!(tile.weights, Weights::Dense(_))).count();
                let units: usize = tiles.iter().map(|tile| tile.units).sum();
                write!(f, "{units} active units in {} tiles", tiles.len())?;
                if dense > 0 {
                    return write!(f, ", {dense} of them dense");
                }
                let (mut both, mut steps) = (0, 0);
                for tile in tiles {
                    if let Weights::Sparse { shared, apart, .. } = &tile.weights {
                        both += shared.len();
                        steps += shared.len() + apart.len();
                    }
                }
                write!(f, ", sparse, {:.0} % of weights share a load", 100.0 * both as f64 / steps.max(1) as f64)
            }
        }
    }
}

impl RowWeights {
    fn new(head: &LinearHead, kept: &dyn Fn(usize, usize) -> bool, width: usize, group: usize) -> Self {
        let (classes, units) = head.weight().dim();
        let mut weights = Vec::new();
        for first in (0..classes).step_by(group) {
            for column in (0..units).step_by(width) {
                for class in first..first + group {
                    let start = column.min(units - width);
                    weights.extend((start..start + width).map(|unit| {
                        let counts = unit >= column && class < classes && kept(class, unit);
                        if counts { head.weight()[(class, unit)] } else { 0.0 }
                    }));
                }
            }
        }
        Self { width, group, weights }
    }
}

impl Tile {
    /// The weights that `kept` marks among `units`, ascending and within `columns`.
    pub(super) fn new(
        head: &LinearHead,
        kept: &dyn Fn(usize, usize) -> bool,
        units: &[usize],
        columns: Range<usize>,
    ) -> Self {
        let (classes, all) = head.weight().dim();
        let chunks = chunks(columns.clone(), units, all);
        let lists: Vec<List> = (0..classes).map(|class| List::new(head, kept, units, class)).collect();
        let total: usize = lists.iter().map(|list| list.weights.len()).sum();
        let weights = if total as f64 > DENSE * (classes * units.len()) as f64 {
            dense(&lists, units.len())
        } else {
            sparse(lists)
        };
        Self { columns, units: units.len(), chunks, weights }
    }

    /// The `columns` of all rows of `matrix` `[M, width]` as a dense tile, for blocks of at most `lanes` inputs.
    pub(super) fn of_columns(matrix: &[f32], width: usize, columns: Range<usize>, lanes: usize) -> Self {
        let units: Vec<usize> = columns.clone().collect();
        let chunks = chunks(columns.clone(), &units, width);
        let groups = (matrix.len() / width).div_ceil(GROUP);
        let mut weights = Vec::with_capacity(groups * units.len());
        for rows in matrix.chunks(GROUP * width) {
            weights.extend(columns.clone().map(|column| {
                let mut group = [0.0; GROUP];
                group.iter_mut().zip(rows.chunks_exact(width)).for_each(|(weight, row)| *weight = row[column]);
                group
            }));
        }
        let tile = Self { columns, units: units.len(), chunks, weights: Weights::Dense(weights) };
        tile.check(matrix.len() / width, width, lanes);
        tile
    }

    /// Asserts conditions (3) to (5) of [`generic`](super::generic).
    pub(super) fn check(&self, classes: usize, all: usize, lanes: usize) {
        assert!(self.columns.start <= self.columns.end && self.columns.end <= all, "(3): columns of the rows");
        assert!(self.units * lanes <= TILE, "(4): the units fit the tile");
        check_chunks(&self.chunks, self.units, all);
        match &self.weights {
            Weights::Dense(weights) => {
                assert!(weights.len() == classes.div_ceil(GROUP) * self.units, "(5): all weights of whole groups");
            }
            Weights::Sparse { pairs, shared, apart } => {
                let lines = classes.next_multiple_of(GROUP);
                let places = apart.iter().flat_map(|step| step.places.map(usize::from));
                let places = places.chain(shared.iter().map(|step| step.place as usize));
                assert!(places.max().is_none_or(|place| place < self.units), "(4): lines of the tile");
                for pair in pairs {
                    assert!(pair.classes[0] != pair.classes[1], "(5): the classes of a pair differ");
                    assert!(pair.classes.iter().all(|class| (*class as usize) < lines), "(5): lines of the logits");
                }
            }
        }
    }
}

/// Asserts conditions (3) and (4) of [`generic`](super::generic) for a tile of `units`, and the spare line behind them.
pub(super) fn check_chunks(chunks: &[Chunk], units: usize, all: usize) {
    for chunk in chunks {
        assert!(all < CHUNK || chunk.column + CHUNK <= all, "(3): chunks lie within rows");
        assert!(chunk.places.iter().all(|place| usize::from(*place) <= units), "(4): lines of the tile");
    }
}

/// Cuts `columns` of rows of `all` values into chunks; `units` of them, ascending, are placed in the tile.
pub(super) fn chunks(columns: Range<usize>, units: &[usize], all: usize) -> Vec<Chunk> {
    let spare = units.len() as u16;
    let mut places = units.iter().enumerate().peekable();
    let chunks = columns.step_by(CHUNK).map(|column| {
        let start = column.min(all.saturating_sub(CHUNK));
        let mut chunk = Chunk { column: start, places: [spare; CHUNK], kept: false };
        // Columns that a chunk which stepped back shares with the one before are not placed twice.
        for offset in column - start..CHUNK {
            if let Some((place, _)) = places.next_if(|(_, unit)| **unit == start + offset) {
                chunk.places[offset] = place as u16;
                chunk.kept = true;
            }
        }
        chunk
    });
    chunks.collect()
}

/// What one class keeps of a tile.
struct List {
    class: usize,
    /// A bit for each place.
    places: Vec<u64>,
    /// (place, weight), ascending.
    weights: Vec<(u16, f32)>,
}

impl List {
    fn new(head: &LinearHead, kept: &dyn Fn(usize, usize) -> bool, units: &[usize], class: usize) -> Self {
        let mut list = Self { class, places: vec![0; units.len().div_ceil(64)], weights: Vec::new() };
        for (place, unit) in units.iter().enumerate().filter(|(_, unit)| kept(class, **unit)) {
            list.places[place / 64] |= 1 << (place % 64);
            list.weights.push((place as u16, head.weight()[(class, *unit)]));
        }
        list
    }

    fn has(&self, place: u16) -> bool {
        self.places.get(usize::from(place) / 64).is_some_and(|bits| bits >> (place % 64) & 1 == 1)
    }

    fn shared_with(&self, other: &Self) -> usize {
        self.places.iter().zip(&other.places).map(|(a, b)| (a & b).count_ones() as usize).sum()
    }
}

fn dense(lists: &[List], units: usize) -> Weights {
    let mut weights = vec![[0.0; GROUP]; lists.len().div_ceil(GROUP) * units];
    for list in lists {
        for (place, weight) in &list.weights {
            weights[list.class / GROUP * units + usize::from(*place)][list.class % GROUP] = *weight;
        }
    }
    Weights::Dense(weights)
}

/// Pairs up classes such that they share many units and differ little in how many they keep.
fn sparse(mut lists: Vec<List>) -> Weights {
    lists.sort_by_key(|list| Reverse(list.weights.len()));
    if lists.len() % 2 == 1 {
        // The last class is paired with an empty one, whose line of logits lies behind the classes and gets zeros.
        lists.push(List { class: lists.len(), places: Vec::new(), weights: Vec::new() });
    }
    let mut matched = Vec::with_capacity(lists.len() / 2);
    let mut left = VecDeque::from(lists);
    while let Some(first) = left.pop_front() {
        // Loads of a step: twelve apart, seven shared.
        let cost = |index: &usize| {
            let other = &left[*index];
            12 * first.weights.len().max(other.weights.len()) - 5 * first.shared_with(other)
        };
        let best = (0..left.len().min(CANDIDATES)).min_by_key(cost);
        let Some(second) = best.and_then(|best| left.remove(best)) else { break };
        let shared = first.shared_with(&second);
        if first.weights.is_empty() && second.weights.is_empty() {
            continue;
        }
        matched.push((shared, first.weights.len().max(second.weights.len()) - shared, first, second));
    }
    // Runs of equal lengths, so that the ends of the loops are predicted.
    matched.sort_by_key(|(shared, apart, ..)| (*shared, *apart));
    let (mut pairs, mut shared, mut apart) = (Vec::new(), Vec::new(), Vec::new());
    for (in_both, alone, first, second) in matched {
        let classes = [first.class as u32, second.class as u32];
        pairs.push(Pair { classes, shared: in_both as u32, apart: alone as u32 });
        let (both_a, only_a): (Vec<_>, Vec<_>) = first.weights.iter().partition(|(place, _)| second.has(*place));
        let (both_b, only_b): (Vec<_>, Vec<_>) = second.weights.iter().partition(|(place, _)| first.has(*place));
        shared.extend(
            both_a.iter().zip(&both_b).map(|((place, a), (_, b))| Shared { weights: [*a, *b], place: (*place).into() }),
        );
        apart.extend((0..alone).map(|step| {
            let of = |list: &[(u16, f32)]| list.get(step).copied().unwrap_or((0, 0.0));
            let (a, b) = (of(&only_a), of(&only_b));
            Apart { weights: [a.1, b.1], places: [a.0, b.0] }
        }));
    }
    Weights::Sparse { pairs, shared, apart }
}
