//! What each input of a model is given of the arrays in a file.

use std::collections::{BTreeMap, HashMap};

use dice_ood::io::{ArrayRows, ArrayValues, Arrays, Extent, WantedArray};
use dice_ood::{Error, ErrorKind, Remedy, Result};

use crate::run::backbone::RowArrays;
use crate::run::input::{Axis, Element, ModelInput};
use crate::text::quoted;

/// Inputs that say which tokens count, and inputs that say which of two texts a token is of, as tokenizers name them.
const MASKS: [&str; 2] = ["attention_mask", "input_mask"];
const TYPES: [&str; 2] = ["token_type_ids", "segment_ids"];

/// How the inputs of a model are filled.
pub(crate) struct Feed {
    inputs: Vec<ModelInput>,
    /// The input whose tokens an input without an array is made for.
    tokens: Option<usize>,
}

/// Rows whose arrays have the same shapes, to be run together.
pub(crate) struct Group {
    /// Their places among the rows that were read.
    pub(crate) rows: Vec<usize>,
    /// One for each input of the model.
    pub(crate) arrays: Vec<RowArrays>,
}

/// What each input has of one row.
type Shapes = Vec<Vec<usize>>;

impl Feed {
    /// The feed of a model with these inputs.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for an input without an axis for the rows.
    pub(crate) fn new(inputs: &[ModelInput]) -> Result<Self> {
        if let Some(input) = inputs.iter().find(|input| input.axes.as_ref().is_some_and(Vec::is_empty)) {
            return Err(Error::new(ErrorKind::Unsupported, input.to_string())
                .tensor(quoted(&input.name))
                .expected("inputs whose first axis is N")
                .fix("export the model with this value as a constant; or compute the features where you train")
                .with_remedy(Remedy::Features));
        }
        let holds_tokens = |input: &ModelInput| is_list(input) && !is_made(input);
        let tokens = inputs.iter().position(holds_tokens);
        Ok(Self { inputs: inputs.to_vec(), tokens })
    }

    /// What files are asked for.
    pub(crate) fn wanted(&self) -> Vec<WantedArray> {
        let of = |input: &ModelInput| WantedArray {
            name: input.name.clone(),
            shape: input.row(),
            integers: input.element.is_whole(),
            optional: self.can_make(input),
        };
        self.inputs.iter().map(of).collect()
    }

    fn can_make(&self, input: &ModelInput) -> bool {
        self.tokens.is_some() && is_made(input)
    }

    /// What is said of arrays that `file` lacks; `has` says which it has.
    pub(crate) fn notes(&self, has: &[bool], file: &str) -> Vec<String> {
        let tokens = self.tokens.map(|place| quoted(&self.inputs[place].name)).unwrap_or_default();
        let lacking = self.inputs.iter().zip(has).filter(|(_, has)| !**has).map(|(input, _)| input);
        let said = lacking.map(|input| {
            let name = quoted(&input.name);
            match is_mask(input) {
                true => format!("no {name} in {file}: every value of {tokens} counts, padding too where there is some"),
                false => format!("no {name} in {file}: zeros"),
            }
        });
        said.collect()
    }

    /// The rows of `arrays`, those of the same shapes together.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] for a list of a length that the model does not take, and for arrays of one row that do not fit each
    /// other.
    pub(crate) fn groups(&self, arrays: &Arrays) -> Result<Vec<Group>> {
        let is_one_shape = |array: &ArrayRows| matches!(array.extent, Extent::Shape(_));
        if arrays.arrays.iter().flatten().all(is_one_shape) && arrays.rows > 0 {
            let shapes = self.shapes(arrays, 0)?;
            return Ok(vec![self.group(arrays, &shapes, (0..arrays.rows).collect())]);
        }
        let mut groups: BTreeMap<Shapes, Vec<usize>> = BTreeMap::new();
        for row in 0..arrays.rows {
            groups.entry(self.shapes(arrays, row)?).or_default().push(row);
        }
        Ok(groups.into_iter().map(|(shapes, rows)| self.group(arrays, &shapes, rows)).collect())
    }

    /// The shape that each input has at `row`, which of lists is that of the model.
    fn shapes(&self, arrays: &Arrays, row: usize) -> Result<Shapes> {
        let number = arrays.first_row + row as u64;
        let of = |input: &ModelInput, array: &Option<ArrayRows>| match array.as_ref().map(|array| &array.extent) {
            None => Ok(Vec::new()),
            Some(Extent::Shape(shape)) => Ok(shape.clone()),
            Some(Extent::Lists(lengths)) => self.shape_of_list(input, lengths[row], number),
        };
        let pairs = self.inputs.iter().zip(&arrays.arrays);
        let mut shapes = pairs.map(|(input, array)| of(input, array)).collect::<Result<Shapes>>()?;
        if let Some(tokens) = self.tokens {
            for place in 0..shapes.len() {
                if arrays.arrays[place].is_none() {
                    shapes[place] = shapes[tokens].clone();
                }
            }
        }
        self.check_names(&shapes, number)?;
        Ok(shapes)
    }

    fn shape_of_list(&self, input: &ModelInput, length: usize, row: u64) -> Result<Vec<usize>> {
        let refuse =
            |found: String| Error::new(ErrorKind::Shape, found).tensor(quoted(&input.name)).expected(input.to_string());
        let wrong = || refuse(format!("a list of {length} at row {row}"));
        let Some(wanted) = input.row() else { return Ok(vec![length]) };
        let fixed: Option<usize> = wanted.iter().flatten().try_fold(1usize, |all, extent| all.checked_mul(*extent));
        let (fixed, free) = (fixed.ok_or_else(wrong)?, wanted.iter().filter(|extent| extent.is_none()).count());
        match (free, &wanted[..]) {
            (0, [Some(extent)]) if length < *extent && self.pads(input) && length > 0 => Ok(vec![*extent]),
            (0, _) if length == fixed => Ok(wanted.into_iter().flatten().collect()),
            (0, [Some(extent)]) if length < *extent && input.element.is_whole() => {
                Err(wrong()
                    .fix(format!("the model takes {extent} and no attention_mask: pad the lists as it was trained")))
            }
            (1, _) if length > 0 && length.is_multiple_of(fixed.max(1)) => {
                Ok(wanted.iter().map(|extent| extent.unwrap_or(length / fixed.max(1))).collect())
            }
            (2.., _) => Err(refuse("lists, which do not tell two free axes".into())
                .fix("give arrays of that shape: npz, safetensors or npy")),
            _ => Err(wrong().fix("truncate or pad where the inputs are made")),
        }
    }

    /// Whether shorter lists of `input` are filled up with zeros, which a mask leaves out.
    fn pads(&self, input: &ModelInput) -> bool {
        is_list(input) && self.inputs.iter().any(is_mask)
    }

    /// Axes of one name have one extent.
    fn check_names(&self, shapes: &Shapes, row: u64) -> Result<()> {
        let mut known: HashMap<&str, (usize, &str)> = HashMap::new();
        for (input, shape) in self.inputs.iter().zip(shapes) {
            let axes = input.axes.as_deref().and_then(|axes| axes.get(1..)).unwrap_or_default();
            for (axis, extent) in axes.iter().zip(shape) {
                let Axis::Free(name) = axis else { continue };
                let first = *known.entry(name).or_insert((*extent, &input.name));
                if first.0 != *extent && name != "?" {
                    return Err(Error::new(ErrorKind::Shape, format!("{extent} values at row {row}"))
                        .tensor(quoted(&input.name))
                        .expected(format!("{}, as {} has ({name})", first.0, quoted(first.1))));
                }
            }
        }
        Ok(())
    }

    /// The arrays of `rows`, all of `shapes`.
    fn group(&self, arrays: &Arrays, shapes: &Shapes, rows: Vec<usize>) -> Group {
        let of = |place: usize| {
            let shape = shapes[place].clone();
            let each = shape.iter().product();
            let values = match &arrays.arrays[place] {
                Some(array) => gathered(array, &rows, each),
                None => ArrayValues::Integers(self.made(arrays, place, &rows, each)),
            };
            RowArrays { shape, values }
        };
        let made = (0..self.inputs.len()).map(of).collect();
        Group { rows, arrays: made }
    }

    /// What an input without an array is given: a mask ones for each value of the tokens, others zeros.
    fn made(&self, arrays: &Arrays, place: usize, rows: &[usize], each: usize) -> Vec<i64> {
        let tokens = self.tokens.and_then(|tokens| arrays.arrays[tokens].as_ref());
        let count = |row: usize| match tokens.map(|tokens| &tokens.extent) {
            _ if !is_mask(&self.inputs[place]) => 0,
            Some(Extent::Lists(lengths)) => lengths[row],
            _ => each,
        };
        let of = |row: &usize| {
            (0..each).map({
                let count = count(*row);
                move |value| i64::from(value < count)
            })
        };
        rows.iter().flat_map(of).collect()
    }
}

/// The values of `rows`, `each` a row: shorter lists are filled up with zeros.
fn gathered(array: &ArrayRows, rows: &[usize], each: usize) -> ArrayValues {
    fn of<T: Copy + Default>(values: &[T], extent: &Extent, rows: &[usize], each: usize) -> Vec<T> {
        let mut starts = vec![0];
        if let Extent::Lists(lengths) = extent {
            starts.extend(lengths.iter().scan(0, |end, length| {
                *end += length;
                Some(*end)
            }));
        }
        let mut all = Vec::with_capacity(rows.len() * each);
        for row in rows {
            let range = match extent {
                Extent::Shape(_) => row * each..(row + 1) * each,
                Extent::Lists(_) => starts[*row]..starts[row + 1],
            };
            all.extend_from_slice(&values[range.clone()]);
            all.resize(all.len() + each - range.len(), T::default());
        }
        all
    }
    match &array.values {
        ArrayValues::Floats(values) => ArrayValues::Floats(of(values, &array.extent, rows, each)),
        ArrayValues::Integers(values) => ArrayValues::Integers(of(values, &array.extent, rows, each)),
    }
}

/// Whole numbers, a list of them each row.
fn is_list(input: &ModelInput) -> bool {
    matches!(input.element, Element::Int64 | Element::Int32 | Element::Bool)
        && input.axes.as_ref().is_none_or(|axes| axes.len() == 2)
}

pub(crate) fn is_mask(input: &ModelInput) -> bool {
    is_list(input) && MASKS.contains(&input.name.as_str())
}

/// Whether files may lack it.
pub(crate) fn is_made(input: &ModelInput) -> bool {
    is_mask(input) || is_list(input) && TYPES.contains(&input.name.as_str())
}
