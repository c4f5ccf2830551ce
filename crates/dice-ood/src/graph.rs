//! A fitted detector as an expression over rows of features.
//!
//! One text serves two ends: a front end lowers it to operators of a model format, and tests evaluate it naively in f64 as the
//! specification that every fast path is compared with.

use std::sync::Arc;

use crate::head::LinearHead;
use crate::mask::Mask;

/// A value of a [`Graph`]: a matrix of one row for each input, or a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Wire(usize);

impl Wire {
    /// Its place among [`Graph::nodes`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// What makes a value of others.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// The penultimate features `[N, D]`.
    Features,
    /// The logits `[N, C]` of features `[N, D]` through the kept weights of a head; all where there is no mask.
    Logits(Wire, Arc<LinearHead>, Option<Arc<Mask>>),
    /// A constant matrix.
    Constant(Matrix),
    /// One value of each: `a + b` and so on; extents of 1 are repeated.
    Binary(Binary, Wire, Wire),
    /// One value of each.
    Unary(Unary, Wire),
    /// One column of each row.
    Reduce(Reduce, Wire),
    /// `x W^T`: `[N, K]` and a constant `W` `[M, K]` to `[N, M]`.
    Times(Wire, Matrix),
    /// `exp(x - max) / sum exp(x - max)` of each row.
    Softmax(Wire),
    /// The rows of a constant `[M, K]` that the indices `[N, I]` say, side by side: `[N, I K]`.
    Pick(Wire, Matrix),
    /// The values of each row, ascending.
    Ascending(Wire),
    /// The place of each value of a row if the row were sorted ascending; of equal values the earlier comes first.
    Ranks(Wire),
    /// How many of these ascending values are at most `x` `[N, 1]`.
    CountAtMost(Wire, Arc<[f64]>),
    /// How many values of each row `[N, K]` are at least each of these E: `[N, E]`.
    CountAtLeast(Wire, Arc<[f32]>),
    /// The same values in rows of so many columns: `[N, I K]` to `[N I, K]`, and back.
    Reshape(Wire, usize),
    /// `sum_k x_k W_mk [W_mk > t_k]` `[N, M]`: of `x` and `t` `[N, K]` and a constant `W` `[M, K]`, whose weights above a row's
    /// own cuts count.
    TimesAbove(Wire, Wire, Matrix),
}

/// A constant `[rows, columns]`, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Its extents.
    pub shape: [usize; 2],
    /// Its values.
    pub values: Arc<[f32]>,
}

/// An operator on two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a b`
    Mul,
    /// `a / b`
    Div,
    /// The smaller.
    Min,
    /// The larger.
    Max,
    /// 1 where `a > b`, else 0.
    Greater,
    /// `a^b`
    Pow,
}

/// An operator on one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unary {
    /// `e^x`
    Exp,
    /// The natural logarithm.
    Log,
    /// The square root.
    Sqrt,
    /// `|x|`
    Abs,
    /// The angle in radians whose cosine this is.
    Acos,
}

/// One value of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduce {
    /// The sum.
    Sum,
    /// The largest.
    Max,
    /// The column of the largest, the first of several.
    ArgMax,
    /// `log sum exp x`, without overflow.
    LogSumExp,
    /// The k-th largest, k from 1.
    KthLargest(usize),
}

/// Operators in an order in which each only reads those before it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Graph(Vec<Op>);

impl Graph {
    /// The operators; [`Wire::index`] says which made a value.
    pub fn nodes(&self) -> &[Op] {
        &self.0
    }

    /// Adds an operator.
    pub fn push(&mut self, op: Op) -> Wire {
        self.0.push(op);
        Wire(self.0.len() - 1)
    }

    /// The features `[N, D]`.
    pub fn features(&mut self) -> Wire {
        match self.0.iter().position(|op| *op == Op::Features) {
            Some(at) => Wire(at),
            None => self.push(Op::Features),
        }
    }

    /// The first logits: those whose largest is the class that a detector predicts.
    pub fn logits(&self) -> Option<Wire> {
        self.0.iter().position(|op| matches!(op, Op::Logits(..))).map(Wire)
    }

    /// A constant.
    pub fn constant(&mut self, shape: [usize; 2], values: impl Into<Arc<[f32]>>) -> Wire {
        self.push(Op::Constant(Matrix { shape, values: values.into() }))
    }

    /// A constant row `[1, n]`.
    pub fn row(&mut self, values: impl IntoIterator<Item = f32>) -> Wire {
        let values: Arc<[f32]> = values.into_iter().collect();
        self.constant([1, values.len()], values)
    }

    /// A constant number.
    pub fn scalar(&mut self, value: f64) -> Wire {
        self.row([value as f32])
    }

    /// An operator on two values.
    pub fn binary(&mut self, op: Binary, a: Wire, b: Wire) -> Wire {
        self.push(Op::Binary(op, a, b))
    }

    /// `a + b`
    pub fn add(&mut self, a: Wire, b: Wire) -> Wire {
        self.binary(Binary::Add, a, b)
    }

    /// `a - b`
    pub fn sub(&mut self, a: Wire, b: Wire) -> Wire {
        self.binary(Binary::Sub, a, b)
    }

    /// `a b`
    pub fn mul(&mut self, a: Wire, b: Wire) -> Wire {
        self.binary(Binary::Mul, a, b)
    }

    /// `a / b`
    pub fn div(&mut self, a: Wire, b: Wire) -> Wire {
        self.binary(Binary::Div, a, b)
    }

    /// `a` times a number.
    pub fn scale(&mut self, a: Wire, by: f64) -> Wire {
        if by == 1.0 {
            return a;
        }
        let by = self.scalar(by);
        self.mul(a, by)
    }

    /// An operator on one value.
    pub fn unary(&mut self, op: Unary, of: Wire) -> Wire {
        self.push(Op::Unary(op, of))
    }

    /// One value of each row.
    pub fn reduce(&mut self, op: Reduce, of: Wire) -> Wire {
        self.push(Op::Reduce(op, of))
    }

    /// The sum of each row.
    pub fn sum(&mut self, of: Wire) -> Wire {
        self.reduce(Reduce::Sum, of)
    }

    /// `x W^T` for a constant `W` of this shape.
    pub fn times(&mut self, of: Wire, shape: [usize; 2], values: impl Into<Arc<[f32]>>) -> Wire {
        self.push(Op::Times(of, Matrix { shape, values: values.into() }))
    }

    /// The rows of a constant `[M, K]` that the indices `[N, I]` say, side by side.
    pub fn pick(&mut self, index: Wire, shape: [usize; 2], values: impl Into<Arc<[f32]>>) -> Wire {
        self.push(Op::Pick(index, Matrix { shape, values: values.into() }))
    }

    /// `a / b`, and 0 where `b` is not above 0.
    pub fn ratio(&mut self, a: Wire, b: Wire) -> Wire {
        let (none, one) = (self.scalar(0.0), self.scalar(1.0));
        let positive = self.binary(Binary::Greater, b, none);
        let not = self.sub(one, positive);
        let (above, below) = (self.mul(a, positive), self.add(b, not));
        self.div(above, below)
    }

    /// The sum of the magnitudes of each row.
    pub fn absolute_sum(&mut self, of: Wire) -> Wire {
        let magnitudes = self.unary(Unary::Abs, of);
        self.sum(magnitudes)
    }

    /// The length of each row.
    pub fn norm(&mut self, of: Wire) -> Wire {
        let squares = self.mul(of, of);
        let sum = self.sum(squares);
        self.unary(Unary::Sqrt, sum)
    }

    /// Each row divided by its length; a row of zeros stays one.
    pub fn to_sphere(&mut self, of: Wire) -> Wire {
        let norm = self.norm(of);
        let least = self.scalar(f64::from(f32::MIN_POSITIVE));
        let norm = self.binary(Binary::Max, norm, least);
        self.div(of, norm)
    }

    /// `P` and `1 - P` of each of the logits `[N, C]`, `P` their softmax; what is left beside a class that is all but certain is
    /// not lost.
    pub fn probabilities(&mut self, logits: Wire) -> (Wire, Wire) {
        let one = self.scalar(1.0);
        let most = self.reduce(Reduce::Max, logits);
        let shifted = self.sub(logits, most);
        let exps = self.unary(Unary::Exp, shifted);
        let below = self.binary(Binary::Greater, most, logits);
        let largest = self.sub(one, below);
        let smaller = self.mul(exps, below);
        let (smaller, equal) = (self.sum(smaller), self.sum(largest));
        // Of several largest logits all but one count among the rest.
        let others = self.sub(equal, one);
        let rest = self.add(smaller, others);
        let all = self.add(rest, one);
        let without = self.sub(all, exps);
        let (of_smaller, of_largest) = (self.mul(below, without), self.mul(largest, rest));
        let complement = self.add(of_smaller, of_largest);
        (self.div(exps, all), self.div(complement, all))
    }

    /// The conformal p-value `(1 + #{reference <= score}) / (n + 1)` of scores `[N, 1]` among n ascending ones.
    pub fn p_value(&mut self, score: Wire, reference: &[f64]) -> Wire {
        let count = self.push(Op::CountAtMost(score, reference.into()));
        let one = self.scalar(1.0);
        let at_least = self.add(count, one);
        let all = self.scalar((reference.len() + 1) as f64);
        self.div(at_least, all)
    }

    /// Evaluates `result` `[N, 1]` for `rows` of features `[N, D]`, naively and in f64.
    pub fn evaluate(&self, features: &[f32], rows: usize, result: Wire) -> Vec<f64> {
        let mut done: Vec<Dense> = Vec::with_capacity(result.0 + 1);
        for op in &self.0[..=result.0] {
            let value = evaluate(op, &done, features, rows);
            done.push(value);
        }
        done.swap_remove(result.0).values
    }
}

/// A matrix in f64.
#[derive(Debug, Clone)]
struct Dense {
    rows: usize,
    columns: usize,
    values: Vec<f64>,
}

impl Dense {
    fn of(matrix: &Matrix) -> Self {
        let [rows, columns] = matrix.shape;
        Self { rows, columns, values: matrix.values.iter().map(|value| f64::from(*value)).collect() }
    }

    fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.values.chunks_exact(self.columns.max(1))
    }

    fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Self { values: self.values.iter().map(|value| f(*value)).collect(), ..*self }
    }

    /// Each row as a row of `columns` values.
    fn map_rows(&self, columns: usize, f: impl Fn(&[f64]) -> Vec<f64>) -> Self {
        Self { rows: self.rows, columns, values: self.rows().flat_map(f).collect() }
    }
}

fn evaluate(op: &Op, done: &[Dense], features: &[f32], rows: usize) -> Dense {
    match op {
        Op::Features => {
            let columns = features.len().checked_div(rows).unwrap_or(0);
            Dense { rows, columns, values: features.iter().map(|value| f64::from(*value)).collect() }
        }
        Op::Logits(of, head, mask) => done[of.0].map_rows(head.classes(), |row| logits(row, head, mask.as_deref())),
        Op::Constant(matrix) => Dense::of(matrix),
        Op::Binary(op, a, b) => binary(*op, &done[a.0], &done[b.0]),
        Op::Unary(op, of) => done[of.0].map(|x| match op {
            Unary::Exp => x.exp(),
            Unary::Log => x.ln(),
            Unary::Sqrt => x.sqrt(),
            Unary::Abs => x.abs(),
            Unary::Acos => x.acos(),
        }),
        Op::Reduce(op, of) => done[of.0].map_rows(1, |row| vec![reduce(*op, row)]),
        Op::Times(of, matrix) => {
            let weights = Dense::of(matrix);
            let product = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum();
            done[of.0].map_rows(weights.rows, |x| weights.rows().map(|w| product(x, w)).collect())
        }
        Op::Softmax(of) => done[of.0].map_rows(done[of.0].columns, |row| {
            let sum = reduce(Reduce::LogSumExp, row);
            row.iter().map(|x| (x - sum).exp()).collect()
        }),
        Op::Pick(index, matrix) => {
            let table = Dense::of(matrix);
            let row = |at: &f64| &table.values[*at as usize * table.columns..][..table.columns];
            let columns = done[index.0].columns * table.columns;
            done[index.0].map_rows(columns, |at| at.iter().flat_map(row).copied().collect())
        }
        Op::Ascending(of) => done[of.0].map_rows(done[of.0].columns, |row| {
            let mut sorted = row.to_vec();
            sorted.sort_by(f64::total_cmp);
            sorted
        }),
        Op::Ranks(of) => done[of.0].map_rows(done[of.0].columns, |row| {
            let mut order: Vec<usize> = (0..row.len()).collect();
            order.sort_by(|a, b| row[*a].total_cmp(&row[*b]));
            let mut ranks = vec![0.0; row.len()];
            order.iter().enumerate().for_each(|(rank, place)| ranks[*place] = rank as f64);
            ranks
        }),
        Op::CountAtMost(of, values) => done[of.0].map(|x| values.iter().filter(|value| **value <= x).count() as f64),
        Op::CountAtLeast(of, values) => done[of.0].map_rows(values.len(), |row| {
            let mut sorted = row.to_vec();
            sorted.sort_by(f64::total_cmp);
            let below = |value: &f32| sorted.partition_point(|x| *x < f64::from(*value));
            values.iter().map(|value| (row.len() - below(value)) as f64).collect()
        }),
        Op::Reshape(of, columns) => {
            let values = done[of.0].values.clone();
            Dense { rows: values.len() / columns, columns: *columns, values }
        }
        Op::TimesAbove(of, cuts, matrix) => times_above(&done[of.0], &done[cuts.0], &Dense::of(matrix)),
    }
}

fn times_above(x: &Dense, cuts: &Dense, weights: &Dense) -> Dense {
    let sum = |x: &[f64], cuts: &[f64], weights: &[f64]| -> f64 {
        let terms = x.iter().zip(cuts).zip(weights);
        terms.filter(|((_, cut), weight)| weight > cut).map(|((x, _), weight)| x * weight).sum()
    };
    let row = |(x, cuts)| weights.rows().map(move |weights| sum(x, cuts, weights));
    Dense { rows: x.rows, columns: weights.rows, values: x.rows().zip(cuts.rows()).flat_map(row).collect() }
}

/// `f_c = b_c + sum_d M[c, d] W[c, d] h_d` (paper, equation 6).
fn logits(row: &[f64], head: &LinearHead, mask: Option<&Mask>) -> Vec<f64> {
    let logit = |class: usize| {
        let kept = |unit: &usize| mask.is_none_or(|mask| mask.kept()[(class, *unit)]);
        let terms = (0..head.units()).filter(kept).map(|unit| f64::from(head.weight()[(class, unit)]) * row[unit]);
        f64::from(head.bias()[class]) + terms.sum::<f64>()
    };
    (0..head.classes()).map(logit).collect()
}

fn binary(op: Binary, a: &Dense, b: &Dense) -> Dense {
    let (rows, columns) = (a.rows.max(b.rows), a.columns.max(b.columns));
    let at = |m: &Dense, row: usize, column: usize| m.values[(row % m.rows) * m.columns + column % m.columns];
    let value = |place: usize| {
        let (x, y) = (at(a, place / columns, place % columns), at(b, place / columns, place % columns));
        match op {
            Binary::Add => x + y,
            Binary::Sub => x - y,
            Binary::Mul => x * y,
            Binary::Div => x / y,
            Binary::Min => x.min(y),
            Binary::Max => x.max(y),
            Binary::Greater => f64::from(u8::from(x > y)),
            Binary::Pow => x.powf(y),
        }
    };
    Dense { rows, columns, values: (0..rows * columns).map(value).collect() }
}

fn reduce(op: Reduce, row: &[f64]) -> f64 {
    let most = || row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    match op {
        Reduce::Sum => row.iter().sum(),
        Reduce::Max => most(),
        Reduce::ArgMax => row.iter().position(|x| *x == most()).unwrap_or(0) as f64,
        Reduce::LogSumExp => {
            let most = most();
            most + row.iter().map(|x| (x - most).exp()).sum::<f64>().ln()
        }
        Reduce::KthLargest(k) => {
            let mut sorted = row.to_vec();
            sorted.sort_by(|a, b| b.total_cmp(a));
            sorted[k - 1]
        }
    }
}
