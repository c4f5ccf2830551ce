//! The expression of a detector as operators of ONNX.
//!
//! A value is an f32 tensor `[N, K]`, or `[1, K]` where it is constant. Every operator of [`dice_ood::graph`] has one function
//! here; only what a wanted value rests on is lowered.

use dice_ood::LinearHead;
use dice_ood::Mask;
use dice_ood::graph::{Binary, Graph, Matrix, Op, Reduce, Unary, Wire};

use crate::model::element;
use crate::model::proto::{AttributeProto, NodeProto};
use crate::write::operators::Operators;

/// Up to so many numbers are compared with a score at once; more are searched in blocks, which takes less memory.
const AT_ONCE: usize = 512;
/// Numbers that are compared with each other for one input at once, at most: 4 MiB of f32. Tests have several blocks.
const BLOCK: usize = if cfg!(test) { 16 } else { 1 << 20 };

/// A weight of the model itself that is the head's, bit for bit.
pub(crate) struct StoredWeight<'m> {
    /// The tensor.
    pub(crate) tensor: &'m str,
    /// Whether it is `[C, D]`, extents of one aside, rather than `[D, C]`.
    pub(crate) classes_first: bool,
    /// The operator that makes it of integers. It is repeated: optimisers fuse a DequantizeLinear with its only reader, which
    /// a second reader would prevent.
    pub(crate) dequantize: Option<NodeProto>,
}

/// Adds what `wanted` rests on, for features `[N, units]`. `stored` is where the model itself holds the weights of the detector's
/// head. By [`Wire::index`] the names of tensors; of values that are not needed, empty ones.
pub(crate) fn lower(
    graph: &Graph,
    wanted: &[Wire],
    operators: &mut Operators,
    features: (&str, usize),
    stored: Option<&StoredWeight<'_>>,
) -> Vec<String> {
    let needed = needed(graph, wanted);
    let mut lowering = Lowering { graph, operators, features, stored, done: Vec::with_capacity(needed.len()) };
    for (op, needed) in graph.nodes().iter().zip(needed) {
        let value = if needed { lowering.op(op) } else { Value::default() };
        lowering.done.push(value);
    }
    lowering.done.into_iter().map(|value| value.name).collect()
}

/// How many bytes the constants take that `wanted` rests on, without heads.
pub(crate) fn constant_bytes(graph: &Graph, wanted: &[Wire]) -> usize {
    let needed = needed(graph, wanted);
    let needed = graph.nodes().iter().zip(needed).filter(|(_, needed)| *needed);
    let values = |op: &Op| match op {
        Op::Constant(matrix) | Op::Times(_, matrix) | Op::Pick(_, matrix) | Op::TimesAbove(_, _, matrix) => {
            matrix.values.len()
        }
        Op::CountAtMost(_, values) => values.len(),
        Op::CountAtLeast(_, values) => values.len(),
        Op::Features | Op::Logits(..) | Op::Binary(..) | Op::Unary(..) | Op::Reduce(..) => 0,
        Op::Softmax(_) | Op::Ascending(_) | Op::Ranks(_) | Op::Reshape(..) => 0,
    };
    needed.map(|(op, _)| values(op).saturating_mul(size_of::<f32>())).fold(0, usize::saturating_add)
}

/// The largest number below every f32 that is at least `value`, by which `x >= value` is `x > number`: `GreaterOrEqual` came
/// with opset 12. A `value` between two numbers counts as the lower one, so that what reached it in f64 still does when it
/// is rounded.
pub(crate) fn just_below(value: f64) -> f32 {
    let mut nearest = value as f32;
    if f64::from(nearest) > value {
        nearest = nearest.next_down();
    }
    nearest.next_down()
}

/// Which operators `wanted` rests on.
fn needed(graph: &Graph, wanted: &[Wire]) -> Vec<bool> {
    let nodes = graph.nodes();
    let mut needed = vec![false; nodes.len()];
    wanted.iter().for_each(|wire| needed[wire.index()] = true);
    for place in (0..nodes.len()).rev() {
        if needed[place] {
            operands(graph, &nodes[place]).into_iter().flatten().for_each(|wire| needed[wire.index()] = true);
        }
    }
    needed
}

/// The number that a wire is, where it is a constant one.
fn number(graph: &Graph, wire: Wire) -> Option<f32> {
    match &graph.nodes()[wire.index()] {
        Op::Constant(Matrix { shape: [1, 1], values }) => values.first().copied(),
        _ => None,
    }
}

/// The value that is clipped, and at what, where one of two operands is a number: `Clip` has the number in a form of its own.
fn clipped(graph: &Graph, a: Wire, b: Wire) -> Option<(Wire, f32)> {
    number(graph, b).map(|bound| (a, bound)).or_else(|| number(graph, a).map(|bound| (b, bound)))
}

/// The values that an operator takes as tensors.
fn operands(graph: &Graph, op: &Op) -> [Option<Wire>; 2] {
    match op {
        Op::Features | Op::Constant(_) => [None, None],
        Op::Binary(Binary::Min | Binary::Max, a, b) => match clipped(graph, *a, *b) {
            Some((of, _)) => [Some(of), None],
            None => [Some(*a), Some(*b)],
        },
        Op::Binary(_, a, b) | Op::TimesAbove(a, b, _) => [Some(*a), Some(*b)],
        Op::Logits(of, _, _) | Op::Unary(_, of) | Op::Reduce(_, of) | Op::Times(of, _) | Op::Softmax(of) => {
            [Some(*of), None]
        }
        Op::Pick(of, _) | Op::Ascending(of) | Op::Ranks(of) | Op::CountAtMost(of, _) => [Some(*of), None],
        Op::CountAtLeast(of, _) | Op::Reshape(of, _) => [Some(*of), None],
    }
}

/// A tensor of the model.
#[derive(Debug, Clone, Default)]
struct Value {
    name: String,
    columns: usize,
}

struct Lowering<'a> {
    graph: &'a Graph,
    operators: &'a mut Operators,
    /// The tensor of features, and how many units they have.
    features: (&'a str, usize),
    stored: Option<&'a StoredWeight<'a>>,
    /// By [`Wire::index`].
    done: Vec<Value>,
}

impl Lowering<'_> {
    fn op(&mut self, op: &Op) -> Value {
        let (name, columns) = match op {
            Op::Features => (self.features.0.to_owned(), self.features.1),
            Op::Logits(of, head, mask) => (self.logits(*of, head, mask.as_deref()), head.classes()),
            Op::Constant(matrix) => (self.matrix("constant", matrix), matrix.shape[1]),
            Op::Binary(op, a, b) => (self.binary(*op, *a, *b), self.columns(*a).max(self.columns(*b))),
            Op::Unary(op, of) => (self.unary(*op, *of), self.columns(*of)),
            Op::Reduce(op, of) => (self.reduce(*op, *of), 1),
            Op::Times(of, matrix) => (self.times(*of, matrix), matrix.shape[0]),
            Op::Softmax(of) => (self.softmax(*of), self.columns(*of)),
            Op::Pick(of, matrix) => {
                let (index, columns) = (self.name(*of), self.columns(*of) * matrix.shape[1]);
                let rows = self.pick(&index, matrix.shape, &matrix.values);
                match self.columns(*of) {
                    1 => (rows, columns),
                    _ => (self.operators.reshape(&rows, &[-1, columns as i64]), columns),
                }
            }
            Op::Ascending(of) => (self.ascending(*of), self.columns(*of)),
            Op::Ranks(of) => (self.ranks(*of), self.columns(*of)),
            Op::CountAtMost(of, values) => (self.count_at_most(*of, values), 1),
            Op::CountAtLeast(of, values) => (self.count_at_least(*of, values), values.len()),
            Op::Reshape(of, columns) => (self.operators.reshape(&self.name(*of), &[-1, *columns as i64]), *columns),
            Op::TimesAbove(of, cuts, matrix) => (self.times_above(*of, *cuts, matrix), matrix.shape[0]),
        };
        Value { name, columns }
    }

    fn name(&self, wire: Wire) -> String {
        self.done[wire.index()].name.clone()
    }

    fn columns(&self, wire: Wire) -> usize {
        self.done[wire.index()].columns
    }

    fn node(&mut self, operator: &str, inputs: &[&str]) -> String {
        self.operators.node(operator, inputs, vec![])
    }

    fn matrix(&mut self, name: &str, matrix: &Matrix) -> String {
        self.operators.floats(name, &matrix.shape, &matrix.values)
    }

    fn binary(&mut self, op: Binary, a: Wire, b: Wire) -> String {
        let (x, y) = (self.name(a), self.name(b));
        let operator = match op {
            Binary::Add => "Add",
            Binary::Sub => "Sub",
            Binary::Mul => "Mul",
            Binary::Div => "Div",
            Binary::Pow => "Pow",
            Binary::Greater => {
                let greater = self.node("Greater", &[&x, &y]);
                return self.operators.cast(&greater, element::FLOAT);
            }
            Binary::Min | Binary::Max => {
                let operator = if op == Binary::Min { "Min" } else { "Max" };
                return match clipped(self.graph, a, b) {
                    Some((of, bound)) => self.clip(operator, &self.name(of), bound),
                    None => self.extreme(operator, &x, &y),
                };
            }
        };
        self.node(operator, &[&x, &y])
    }

    /// `Min` or `Max` of a tensor and a number.
    fn clip(&mut self, operator: &str, x: &str, bound: f32) -> String {
        let is_upper = operator == "Min";
        if self.operators.opset() >= 11 {
            let bound = self.operators.scalar("bound", bound);
            return if is_upper { self.node("Clip", &[x, "", &bound]) } else { self.node("Clip", &[x, &bound]) };
        }
        if bound != 0.0 {
            let bound = AttributeProto::float(if is_upper { "max" } else { "min" }, bound);
            return self.operators.node("Clip", &[x], vec![bound]);
        }
        if !is_upper {
            return self.node("Relu", &[x]);
        }
        let turned = self.node("Neg", &[x]);
        let clipped = self.node("Relu", &[&turned]);
        self.node("Neg", &[&clipped])
    }

    /// `Min` or `Max` of two tensors, which broadcast from opset 8.
    fn extreme(&mut self, operator: &str, x: &str, y: &str) -> String {
        if self.operators.opset() >= 8 {
            return self.node(operator, &[x, y]);
        }
        let zero = self.operators.scalar("zero", 0.0);
        let zeros = |this: &mut Self, of: &str| this.node("Mul", &[of, &zero]);
        let (zeros_of_x, zeros_of_y) = (zeros(self, x), zeros(self, y));
        let (wide_x, wide_y) = (self.node("Add", &[x, &zeros_of_y]), self.node("Add", &[y, &zeros_of_x]));
        self.node(operator, &[&wide_x, &wide_y])
    }

    fn unary(&mut self, op: Unary, of: Wire) -> String {
        let of = self.name(of);
        let operator = match op {
            Unary::Exp => "Exp",
            Unary::Log => "Log",
            Unary::Sqrt => "Sqrt",
            Unary::Abs => "Abs",
            Unary::Acos => "Acos",
        };
        self.node(operator, &[&of])
    }

    fn reduce(&mut self, op: Reduce, of: Wire) -> String {
        let of = self.name(of);
        match op {
            Reduce::Sum => self.operators.reduce("ReduceSum", &of, 1),
            Reduce::Max | Reduce::KthLargest(1) => self.operators.reduce("ReduceMax", &of, 1),
            Reduce::ArgMax => {
                let place = self.operators.node("ArgMax", &[&of], vec![AttributeProto::int("axis", 1)]);
                self.operators.cast(&place, element::FLOAT)
            }
            Reduce::LogSumExp => self.log_sum_exp(&of),
            Reduce::KthLargest(k) => {
                let [largest, _] = self.operators.top(&of, k);
                let last = self.operators.integers("column", &[k as i64 - 1]);
                self.operators.node("Gather", &[&largest, &last], vec![AttributeProto::int("axis", 1)])
            }
        }
    }

    /// `max + log sum exp(x - max)`, which cannot overflow.
    fn log_sum_exp(&mut self, of: &str) -> String {
        let max = self.operators.reduce("ReduceMax", of, 1);
        let shifted = self.node("Sub", &[of, &max]);
        let exponentials = self.node("Exp", &[&shifted]);
        let sum = self.operators.reduce("ReduceSum", &exponentials, 1);
        let log = self.node("Log", &[&sum]);
        self.node("Add", &[&max, &log])
    }

    /// By a matrix that is stored transposed: Gemm would take a bias before opset 11.
    fn times(&mut self, of: Wire, matrix: &Matrix) -> String {
        let [rows, columns] = matrix.shape;
        let turned: Vec<f32> =
            (0..columns).flat_map(|column| (0..rows).map(move |row| matrix.values[row * columns + column])).collect();
        let turned = self.operators.floats("matrix", &[columns, rows], &turned);
        let of = self.name(of);
        self.node("MatMul", &[&of, &turned])
    }

    fn softmax(&mut self, of: Wire) -> String {
        // From opset 13 the default is the last axis; before, all axes from this one on.
        let of = self.name(of);
        self.operators.node("Softmax", &[&of], vec![AttributeProto::int("axis", 1)])
    }

    /// The rows of a constant `[M, K]` that the indices `[N, 1]` say.
    /// A row of the table for each index, indices row by row.
    fn pick(&mut self, index: &str, shape: [usize; 2], values: &[f32]) -> String {
        let index = self.operators.cast(index, element::INT64);
        let index = self.operators.reshape(&index, &[-1]);
        let table = self.operators.floats("table", &shape, values);
        self.node("Gather", &[&table, &index])
    }

    fn ascending(&mut self, of: Wire) -> String {
        let [largest, _] = self.smallest_first(of);
        self.node("Neg", &[&largest])
    }

    /// The columns in the order of their values, and where each column stands in that order.
    fn ranks(&mut self, of: Wire) -> String {
        let [_, order] = self.smallest_first(of);
        let order = self.operators.cast(&order, element::FLOAT);
        let turned = self.node("Neg", &[&order]);
        let [_, ranks] = self.operators.top(&turned, self.columns(of));
        self.operators.cast(&ranks, element::FLOAT)
    }

    /// The negated values of each row and their columns, ascending by value.
    fn smallest_first(&mut self, of: Wire) -> [String; 2] {
        let turned = self.node("Neg", &[&self.name(of)]);
        self.operators.top(&turned, self.columns(of))
    }

    /// Compares with all values, or first with those at which blocks start, then with those of one block.
    fn count_at_most(&mut self, of: Wire, values: &[f64]) -> String {
        let of = self.name(of);
        let below: Vec<f32> = values.iter().copied().map(just_below).collect();
        if below.len() <= AT_ONCE {
            let all = self.operators.floats("values", &[1, below.len()], &below);
            return self.count_above(&of, &all);
        }
        let width = below.len().isqrt() + 1;
        let starts: Vec<f32> = below.chunks(width).skip(1).map(|block| block[0]).collect();
        let starts = self.operators.floats("starts", &[1, starts.len()], &starts);
        let block = self.count_above(&of, &starts);
        // No number is above NaN.
        let mut padded = below;
        padded.resize(padded.len().next_multiple_of(width), f32::NAN);
        let within = self.pick(&block, [padded.len() / width, width], &padded);
        let rest = self.count_above(&of, &within);
        let width = self.operators.scalar("width", width as f32);
        let before = self.node("Mul", &[&block, &width]);
        self.node("Add", &[&before, &rest])
    }

    /// Of blocks of numbers, so that what is compared at once stays small for each input.
    fn count_at_least(&mut self, of: Wire, values: &[f32]) -> String {
        let columns = self.columns(of);
        let of = self.name(of);
        let of = self.operators.reshape(&of, &[-1, columns as i64, 1]);
        let blocks = values.chunks((BLOCK / columns.max(1)).max(1));
        let counts: Vec<String> = blocks
            .map(|block| {
                let below: Vec<f32> = block.iter().map(|value| just_below(f64::from(*value))).collect();
                let below = self.operators.floats("values", &[1, 1, below.len()], &below);
                let above = self.node("Greater", &[&of, &below]);
                let ones = self.operators.cast(&above, element::FLOAT);
                let counts = self.operators.reduce("ReduceSum", &ones, 1);
                self.operators.reshape(&counts, &[-1, block.len() as i64])
            })
            .collect();
        self.side_by_side(&counts)
    }

    /// Of blocks of the matrix's rows: which of its weights count is another matrix for each input.
    fn times_above(&mut self, of: Wire, cuts: Wire, matrix: &Matrix) -> String {
        let columns = matrix.shape[1];
        let (of, cuts) = (self.name(of), self.name(cuts));
        let of = self.operators.reshape(&of, &[-1, columns as i64, 1]);
        let cuts = self.operators.reshape(&cuts, &[-1, 1, columns as i64]);
        let blocks = matrix.values.chunks((BLOCK / columns).max(1) * columns);
        let sums: Vec<String> = blocks
            .map(|block| {
                let rows = block.len() / columns;
                let weights = self.operators.floats("weights", &[1, rows, columns], block);
                let above = self.node("Greater", &[&weights, &cuts]);
                let kept = self.operators.cast(&above, element::FLOAT);
                let kept = self.node("Mul", &[&kept, &weights]);
                let sums = self.node("MatMul", &[&kept, &of]);
                self.operators.reshape(&sums, &[-1, rows as i64])
            })
            .collect();
        self.side_by_side(&sums)
    }

    fn side_by_side(&mut self, parts: &[String]) -> String {
        match parts {
            [one] => one.clone(),
            _ => {
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                self.operators.node("Concat", &parts, vec![AttributeProto::int("axis", 1)])
            }
        }
    }

    /// How many of the values of each row are below `x` `[N, 1]`.
    fn count_above(&mut self, x: &str, values: &str) -> String {
        let above = self.node("Greater", &[x, values]);
        let ones = self.operators.cast(&above, element::FLOAT);
        self.operators.reduce("ReduceSum", &ones, 1)
    }

    /// `[N, C]`, of whichever takes less room: the model's own weights and which of them are kept, or those of the units that
    /// keep any.
    fn logits(&mut self, of: Wire, head: &LinearHead, mask: Option<&Mask>) -> String {
        let (classes, units) = (head.classes(), head.units());
        let used: Vec<usize> = (0..units).filter(|unit| (0..classes).any(|class| keeps(mask, class, *unit))).collect();
        let index = if used.len() < units { size_of::<i64>() } else { 0 };
        let copied = used.len() * (classes * size_of::<f32>() + index);
        let marked = if mask.is_some() { classes * units } else { 0 };
        let of = self.name(of);
        match self.stored.filter(|_| marked < copied) {
            Some(stored) => self.logits_of_stored(&of, stored, head, mask),
            None => self.logits_of_copied(&of, &used, head, mask),
        }
    }

    fn logits_of_stored(
        &mut self,
        of: &str,
        stored: &StoredWeight<'_>,
        head: &LinearHead,
        mask: Option<&Mask>,
    ) -> String {
        let (classes, units) = (head.classes(), head.units());
        let weight = match &stored.dequantize {
            None => stored.tensor.to_owned(),
            Some(node) => {
                let inputs: Vec<&str> = node.input.iter().map(String::as_str).collect();
                self.operators.node(&node.op_type, &inputs, node.attribute.clone())
            }
        };
        let shape = if stored.classes_first { [classes, units] } else { [units, classes] };
        let shape = shape.map(|extent| extent as i64);
        let weight = self.operators.reshape(&weight, &shape);
        let mut weight = self.operators.cast(&weight, element::FLOAT);
        if mask.is_some() {
            let kept = |place: usize| match stored.classes_first {
                true => keeps(mask, place / units, place % units),
                false => keeps(mask, place % classes, place / classes),
            };
            let kept = (0..classes * units).map(|place| u8::from(kept(place))).collect();
            let kept = self.operators.constant("kept", shape.to_vec(), element::BOOL, kept);
            let kept = self.operators.cast(&kept, element::FLOAT);
            weight = self.node("Mul", &[&weight, &kept]);
        }
        let turned = stored.classes_first.then(|| AttributeProto::int("transB", 1));
        self.gemm(of, &weight, head, turned)
    }

    fn logits_of_copied(&mut self, of: &str, used: &[usize], head: &LinearHead, mask: Option<&Mask>) -> String {
        let mut rows = of.to_owned();
        if used.len() < head.units() {
            let indices: Vec<i64> = used.iter().map(|unit| *unit as i64).collect();
            let indices = self.operators.integers("units", &indices);
            rows = self.operators.node("Gather", &[&rows, &indices], vec![AttributeProto::int("axis", 1)]);
        }
        let mut weight = Vec::with_capacity(head.classes() * used.len());
        for class in 0..head.classes() {
            let value = |unit: &usize| if keeps(mask, class, *unit) { head.weight()[(class, *unit)] } else { 0.0 };
            weight.extend(used.iter().map(value));
        }
        let weight = self.operators.floats("weight", &[head.classes(), used.len()], &weight);
        self.gemm(&rows, &weight, head, Some(AttributeProto::int("transB", 1)))
    }

    fn gemm(&mut self, rows: &str, weight: &str, head: &LinearHead, turned: Option<AttributeProto>) -> String {
        let bias = self.operators.floats("bias", &[head.classes()], &head.bias().to_vec());
        self.operators.node("Gemm", &[rows, weight, &bias], turned.into_iter().collect())
    }
}

fn keeps(mask: Option<&Mask>, class: usize, unit: usize) -> bool {
    mask.is_none_or(|mask| mask.kept()[(class, unit)])
}

#[cfg(test)]
mod tests;
