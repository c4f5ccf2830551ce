//! The graph as an index: which operator makes a tensor, which ones read it, which tensors are constant.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;

use dice_ood::{Error, ErrorKind, Result};

use crate::model::node::{attribute, integer, is_standard, named};
use crate::model::proto::{GraphProto, NodeProto, TensorProto, ValueInfoProto};
use crate::model::tensor::{Constant, count_of, shape_of};
use crate::text::quoted;

/// Operators on the way from a stored weight to its use; more are not followed.
const MAX_FOLDED: usize = 64;

/// Where a tensor comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'m> {
    Input,
    Initializer(&'m TensorProto),
    Sparse,
    Node(usize),
}

/// A graph whose every tensor has one source and in which nothing depends on itself.
pub(crate) struct Graph<'m> {
    pub(crate) nodes: &'m [NodeProto],
    pub(crate) inputs: Vec<&'m ValueInfoProto>,
    pub(crate) outputs: &'m [ValueInfoProto],
    /// The nodes so that all that a node reads comes before it.
    pub(crate) order: Vec<usize>,
    folder: &'m Path,
    sources: HashMap<&'m str, Source<'m>>,
    consumers: HashMap<&'m str, Vec<usize>>,
    constants: HashSet<&'m str>,
    infos: HashMap<&'m str, &'m ValueInfoProto>,
}

impl<'m> Graph<'m> {
    pub(crate) fn new(proto: &'m GraphProto, folder: &'m Path) -> Result<Self> {
        let mut graph = Self {
            nodes: &proto.node,
            inputs: Vec::new(),
            outputs: &proto.output,
            order: Vec::with_capacity(proto.node.len()),
            folder,
            sources: HashMap::new(),
            consumers: HashMap::new(),
            constants: HashSet::new(),
            infos: HashMap::new(),
        };
        graph.add_sources(proto)?;
        // Before IR version 4 every initializer was listed among the inputs, where it is no input of the model.
        for input in &proto.input {
            if let Source::Input = *graph.sources.entry(&input.name).or_insert(Source::Input) {
                graph.inputs.push(input);
            }
        }
        graph.add_consumers()?;
        graph.sort()?;
        graph.mark_constants();
        graph.infos = proto.value_info.iter().chain(&proto.input).chain(&proto.output).map(|i| (&*i.name, i)).collect();
        for output in graph.outputs {
            if !graph.sources.contains_key(&*output.name) {
                return Err(Error::new(ErrorKind::Missing, "no operator that makes it")
                    .tensor(format!("output {}", quoted(&output.name)))
                    .fix("the file is damaged or incomplete: export the model again"));
            }
        }
        Ok(graph)
    }

    fn add_sources(&mut self, proto: &'m GraphProto) -> Result<()> {
        let sparse = proto.sparse_initializer.iter().filter_map(|tensor| tensor.values.as_ref());
        let stored = proto.initializer.iter().map(|tensor| (&*tensor.name, Source::Initializer(tensor)));
        let stored = stored.chain(sparse.map(|tensor| (&*tensor.name, Source::Sparse)));
        let made = proto.node.iter().enumerate().flat_map(|(place, node)| {
            node.output.iter().filter(|name| !name.is_empty()).map(move |name| (&**name, Source::Node(place)))
        });
        for (name, source) in stored.filter(|(name, _)| !name.is_empty()).chain(made) {
            if self.sources.insert(name, source).is_some() {
                return Err(Error::new(ErrorKind::Malformed, "two tensors of this name")
                    .tensor(quoted(name))
                    .expected("one source for every tensor")
                    .fix("the model is invalid: export it again"));
            }
        }
        Ok(())
    }

    fn add_consumers(&mut self) -> Result<()> {
        for (place, node) in self.nodes.iter().enumerate() {
            for name in node.input.iter().filter(|name| !name.is_empty()) {
                if !self.sources.contains_key(&**name) {
                    return Err(Error::new(ErrorKind::Missing, format!("no tensor {}", quoted(name)))
                        .tensor(named(node))
                        .expected("every input to be a model input, an initializer or made by an operator")
                        .fix("the file is damaged or incomplete: export the model again"));
                }
                self.consumers.entry(name).or_default().push(place);
            }
        }
        Ok(())
    }

    /// Kahn's algorithm: what it does not reach depends on itself.
    fn sort(&mut self) -> Result<()> {
        let made = |name: &&String| matches!(self.sources.get(&***name), Some(Source::Node(_)));
        let mut waiting: Vec<usize> = self.nodes.iter().map(|node| node.input.iter().filter(made).count()).collect();
        let mut ready: VecDeque<usize> =
            waiting.iter().enumerate().filter(|(_, count)| **count == 0).map(|(place, _)| place).collect();
        while let Some(place) = ready.pop_front() {
            self.order.push(place);
            for name in self.nodes[place].output.iter().filter(|name| !name.is_empty()) {
                for consumer in self.consumers.get(&**name).into_iter().flatten() {
                    waiting[*consumer] -= 1;
                    if waiting[*consumer] == 0 {
                        ready.push_back(*consumer);
                    }
                }
            }
        }
        match waiting.iter().position(|count| *count > 0) {
            None => Ok(()),
            Some(place) => Err(Error::new(ErrorKind::Malformed, "a cycle: it depends on its own output")
                .tensor(named(&self.nodes[place]))
                .expected("a graph without cycles")
                .fix("the model is invalid: export it again")),
        }
    }

    /// The most operators that one after the other depend on each other.
    pub(crate) fn depth(&self) -> usize {
        let mut depths = vec![0; self.nodes.len()];
        for place in &self.order {
            let of = |name: &String| self.producer(name).map_or(0, |(maker, _)| depths[maker]);
            depths[*place] = 1 + self.nodes[*place].input.iter().map(of).max().unwrap_or(0);
        }
        depths.into_iter().max().unwrap_or(0)
    }

    fn mark_constants(&mut self) {
        for (name, source) in &self.sources {
            if matches!(source, Source::Initializer(_)) {
                self.constants.insert(name);
            }
        }
        for place in &self.order {
            let node = &self.nodes[*place];
            let folds = match &*node.op_type {
                "Constant" => is_standard(node),
                "Identity" | "Cast" | "Reshape" | "Transpose" | "Squeeze" | "Unsqueeze" | "Flatten" | "Add" | "Sub"
                | "Mul" | "Div" | "Sqrt" | "Max" | "Min" | "Clip" | "ReduceL2" | "ReduceSum" | "Shape" | "Expand" => {
                    is_standard(node) && !node.input.is_empty() && self.all_constant(node)
                }
                "DequantizeLinear" | "QuantizeLinear" => !node.input.is_empty() && self.all_constant(node),
                _ => false,
            };
            if let Some(output) = node.output.first().filter(|_| folds) {
                self.constants.insert(output);
            }
        }
    }

    fn all_constant(&self, node: &NodeProto) -> bool {
        node.input.iter().all(|name| name.is_empty() || self.is_constant(name))
    }

    pub(crate) fn source(&self, tensor: &str) -> Option<Source<'m>> {
        self.sources.get(tensor).copied()
    }

    /// The node that makes a tensor, and its place.
    pub(crate) fn producer(&self, tensor: &str) -> Option<(usize, &'m NodeProto)> {
        match self.source(tensor)? {
            Source::Node(place) => Some((place, &self.nodes[place])),
            _ => None,
        }
    }

    /// The places of the nodes that read a tensor.
    pub(crate) fn consumers(&self, tensor: &str) -> &[usize] {
        self.consumers.get(tensor).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn is_output(&self, tensor: &str) -> bool {
        self.outputs.iter().any(|output| output.name == tensor)
    }

    /// Whether [`Graph::fold`] may read it.
    pub(crate) fn is_constant(&self, tensor: &str) -> bool {
        self.constants.contains(tensor)
    }

    /// The tensor of this name, where there is one.
    pub(crate) fn tensor(&self, name: &str) -> Option<&'m str> {
        self.sources.get_key_value(name).map(|(name, _)| *name)
    }

    /// What the model declares of a tensor.
    pub(crate) fn info(&self, tensor: &str) -> Option<&'m ValueInfoProto> {
        self.infos.get(tensor).copied()
    }

    /// Dimensions of a tensor, `None` for those that are free; from what the model declares or its operator implies.
    pub(crate) fn dimensions(&self, tensor: &str) -> Option<Vec<Option<usize>>> {
        if let Some(Source::Initializer(stored)) = self.source(tensor) {
            return Some(shape_of(stored).ok()?.into_iter().map(Some).collect());
        }
        let declared = self.info(tensor).and_then(dimensions_of).filter(|dimensions| !dimensions.is_empty());
        let implied = || {
            let (_, node) = self.producer(tensor)?;
            if node.op_type != "Reshape" {
                return None;
            }
            let shape = self.small(node.input.get(1)?)?;
            let shape = shape.as_ints().ok()?;
            // The batch is often written as the size it had when the model was exported.
            Some(shape.iter().map(|extent| usize::try_from(*extent).ok().filter(|extent| *extent > 0)).collect())
        };
        declared.or_else(implied)
    }

    /// The dimensions of a tensor, looked up behind operators that keep them.
    pub(crate) fn dimensions_behind(&self, tensor: &str) -> Option<Vec<Option<usize>>> {
        let mut tensor = tensor;
        for _ in 0..16 {
            if let Some(dimensions) = self.dimensions(tensor) {
                return Some(dimensions);
            }
            let (_, node) = self.producer(tensor)?;
            match &*node.op_type {
                "GlobalAveragePool" | "GlobalMaxPool" | "QLinearGlobalAveragePool" => {
                    return Some(vec![None, None, Some(1), Some(1)]);
                }
                "Flatten" => return Some(vec![None, None]),
                "Identity" | "Dropout" | "QuantizeLinear" | "DequantizeLinear" | "Cast" | "Relu" | "Clip"
                | "BatchNormalization" => tensor = node.input.first()?,
                _ => return None,
            }
        }
        None
    }

    /// The shape of a constant, without reading its values where they are merely converted.
    pub(crate) fn constant_shape(&self, tensor: &str) -> Result<Vec<usize>> {
        let mut source = tensor;
        for _ in 0..MAX_FOLDED {
            match self.source(source) {
                Some(Source::Initializer(stored)) => return shape_of(stored),
                Some(Source::Node(place)) => match (&*self.nodes[place].op_type, self.nodes[place].input.first()) {
                    ("Identity" | "Cast" | "DequantizeLinear" | "QuantizeLinear", Some(input)) => source = input,
                    _ => break,
                },
                _ => break,
            }
        }
        Ok(self.fold(tensor)?.shape)
    }

    /// A constant of at most a few thousand values, where it is stored as such.
    pub(crate) fn small(&self, tensor: &str) -> Option<Constant> {
        const SMALL: usize = 4096;
        let read = |stored: &TensorProto| {
            let count = shape_of(stored).and_then(|shape| count_of(&shape)).ok()?;
            if count > SMALL || stored.is_external() { None } else { Constant::read(stored, self.folder).ok() }
        };
        match self.source(tensor)? {
            Source::Initializer(stored) => read(stored),
            Source::Node(place) if self.nodes[place].op_type == "Constant" && self.is_constant(tensor) => {
                let node = &self.nodes[place];
                match attribute(node, "value").and_then(|attribute| attribute.t.as_deref()) {
                    Some(stored) => read(stored),
                    None if node.attribute.iter().any(|one| one.floats.len().max(one.ints.len()) > SMALL) => None,
                    None => constant_of(node, self.folder).ok(),
                }
            }
            _ => None,
        }
    }

    /// The axes that an operator names: an attribute in older operator sets, its second input in later ones.
    pub(crate) fn axes(&self, node: &NodeProto) -> Option<Vec<i64>> {
        match node.input.get(1) {
            Some(axes) => self.small(axes)?.as_ints().map(<[i64]>::to_vec).ok(),
            None => attribute(node, "axes").map(|axes| axes.ints.clone()),
        }
    }

    /// The value of a constant tensor.
    pub(crate) fn fold(&self, tensor: &str) -> Result<Constant> {
        self.fold_within(tensor, &mut { MAX_FOLDED })
    }

    fn fold_within(&self, tensor: &str, steps: &mut usize) -> Result<Constant> {
        *steps = steps.checked_sub(1).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "a longer chain of operators")
                .tensor(quoted(tensor))
                .expected(format!("at most {MAX_FOLDED} operators between stored weights and their use"))
                .fix("fold the constants of the model first, for instance by an ONNX simplifier")
        })?;
        match self.source(tensor) {
            Some(Source::Initializer(stored)) => Constant::read(stored, self.folder),
            Some(Source::Node(place)) if self.is_constant(tensor) => {
                let node = &self.nodes[place];
                self.fold_node(node, steps).map_err(|error| error.tensor(named(node)))
            }
            _ => Err(Error::new(ErrorKind::Unsupported, "a computed tensor")
                .tensor(quoted(tensor))
                .expected("a constant")),
        }
    }

    fn fold_node(&self, node: &NodeProto, steps: &mut usize) -> Result<Constant> {
        if node.op_type == "Constant" {
            return constant_of(node, self.folder);
        }
        let mut input = |place: usize| -> Result<Option<Constant>> {
            match node.input.get(place).filter(|name| !name.is_empty()) {
                Some(name) => self.fold_within(name, steps).map(Some),
                None => Ok(None),
            }
        };
        let lacks = || Error::new(ErrorKind::Malformed, "too few inputs");
        let first = input(0)?.ok_or_else(lacks)?;
        let axes = |given: Option<Constant>| -> Result<Vec<i64>> {
            match given {
                Some(given) => Ok(given.as_ints()?.to_vec()),
                None => Ok(attribute(node, "axes").map(|axes| axes.ints.clone()).unwrap_or_default()),
            }
        };
        match &*node.op_type {
            "Identity" => Ok(first),
            "Cast" => first.cast(integer(node, "to", 0) as i32),
            "Reshape" => {
                let shape = match input(1)? {
                    Some(shape) => shape.as_ints()?.to_vec(),
                    None => attribute(node, "shape").map(|shape| shape.ints.clone()).ok_or_else(lacks)?,
                };
                first.reshape(&shape, integer(node, "allowzero", 0) == 0)
            }
            "Transpose" => first.transpose(attribute(node, "perm").map_or(&[], |perm| &perm.ints)),
            "Squeeze" => first.squeeze(&axes(input(1)?)?),
            "Unsqueeze" => first.unsqueeze(&axes(input(1)?)?),
            "Flatten" => first.flatten(integer(node, "axis", 1)),
            "DequantizeLinear" => first.dequantize(input(1)?.ok_or_else(lacks)?, input(2)?, integer(node, "axis", 1)),
            "QuantizeLinear" => first.quantize(input(1)?.ok_or_else(lacks)?, input(2)?, integer(node, "axis", 1)),
            "Sqrt" => Ok(first.map(f32::sqrt)),
            // How a cosine head normalises its weights, where the exporter left it to the graph.
            "ReduceL2" | "ReduceSum" => {
                let axes = axes(input(1)?)?;
                if axes.is_empty() && integer(node, "noop_with_empty_axes", 0) != 0 {
                    return Err(Error::new(ErrorKind::Unsupported, "a reduction of no axes").expected("axes to reduce"));
                }
                first.reduce(&axes, integer(node, "keepdims", 1) != 0, node.op_type == "ReduceL2")
            }
            "Shape" if node.attribute.is_empty() => Ok(first.extents()),
            "Expand" => first.expand(input(1)?.ok_or_else(lacks)?.as_ints()?, self.largest()),
            "Clip" => {
                let mut bound = |place: usize, name: &str, unbounded: f32| -> Result<f32> {
                    let given = input(place)?.map(|bound| bound.into_f32().first().copied().ok_or_else(lacks));
                    let attribute = attribute(node, name).map(|bound| Ok(bound.f));
                    given.or(attribute).unwrap_or(Ok(unbounded))
                };
                Ok(first.clip(bound(1, "min", f32::NEG_INFINITY)?, bound(2, "max", f32::INFINITY)?))
            }
            operator => {
                let second = input(1)?.ok_or_else(lacks)?;
                let operation = arithmetic(operator, node.input.len())?;
                first.combine(second, operation)
            }
        }
    }
}

impl Graph<'_> {
    /// Values of the largest stored tensor: what constants are expanded to has no more.
    fn largest(&self) -> usize {
        let stored = self.sources.values().filter_map(|source| match source {
            Source::Initializer(stored) => shape_of(stored).and_then(|shape| count_of(&shape)).ok(),
            _ => None,
        });
        stored.max().unwrap_or(0)
    }
}

/// What an operator makes of two values.
fn arithmetic(operator: &str, operands: usize) -> Result<fn(f32, f32) -> f32> {
    Ok(match operator {
        "Add" => |a, b| a + b,
        "Sub" => |a, b| a - b,
        "Mul" => |a, b| a * b,
        "Div" => |a, b| a / b,
        "Max" if operands == 2 => f32::max,
        "Min" if operands == 2 => f32::min,
        _ => {
            let found = format!("{operator} of {operands} constants");
            return Err(Error::new(ErrorKind::Unsupported, found).expected("one of two"));
        }
    })
}

fn constant_of(node: &NodeProto, folder: &Path) -> Result<Constant> {
    for attribute in &node.attribute {
        return match &*attribute.name {
            "value" => match &attribute.t {
                Some(stored) => Constant::read(stored, folder),
                None => Err(Error::new(ErrorKind::Malformed, "an empty value")),
            },
            "value_float" => Ok(Constant::floats(Vec::new(), vec![attribute.f])),
            "value_floats" => Ok(Constant::floats(vec![attribute.floats.len()], attribute.floats.clone())),
            "value_int" => Ok(Constant::ints(Vec::new(), vec![attribute.i])),
            "value_ints" => Ok(Constant::ints(vec![attribute.ints.len()], attribute.ints.clone())),
            _ => continue,
        };
    }
    Err(Error::new(ErrorKind::Unsupported, "a constant that is no dense tensor of numbers"))
}

/// Dimensions as declared, `None` for those that are free; `None` where the shape is not declared.
pub(crate) fn dimensions_of(info: &ValueInfoProto) -> Option<Vec<Option<usize>>> {
    let shape = info.r#type.as_ref()?.tensor_type.as_ref()?.shape.as_ref()?;
    let known = |extent: i64| usize::try_from(extent).ok().filter(|extent| *extent > 0);
    Some(shape.dim.iter().map(|dimension| dimension.dim_value.and_then(known)).collect())
}
