//! The tensors of what was fitted, by name: what a step puts when it is saved, and takes when it is loaded.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

/// Values of a tensor, shared: a bank that two steps rest on is in memory once, and is written once.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the names are the types")]
pub enum Values {
    F32(Arc<[f32]>),
    F64(Arc<[f64]>),
    I64(Arc<[i64]>),
    U8(Arc<[u8]>),
    U32(Arc<[u32]>),
    U64(Arc<[u64]>),
}

impl Values {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
            Self::I64(values) => values.len(),
            Self::U8(values) => values.len(),
            Self::U32(values) => values.len(),
            Self::U64(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether both are the same memory.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::F32(a), Self::F32(b)) => Arc::ptr_eq(a, b),
            (Self::F64(a), Self::F64(b)) => Arc::ptr_eq(a, b),
            (Self::I64(a), Self::I64(b)) => Arc::ptr_eq(a, b),
            (Self::U8(a), Self::U8(b)) => Arc::ptr_eq(a, b),
            (Self::U32(a), Self::U32(b)) => Arc::ptr_eq(a, b),
            (Self::U64(a), Self::U64(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// What the type of the values is called.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::F32(_) => f32::NAME,
            Self::F64(_) => f64::NAME,
            Self::I64(_) => i64::NAME,
            Self::U8(_) => u8::NAME,
            Self::U32(_) => u32::NAME,
            Self::U64(_) => u64::NAME,
        }
    }

    /// The values in memory order, as bytes of this machine.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::F32(values) => bytemuck::cast_slice(values),
            Self::F64(values) => bytemuck::cast_slice(values),
            Self::I64(values) => bytemuck::cast_slice(values),
            Self::U8(values) => values,
            Self::U32(values) => bytemuck::cast_slice(values),
            Self::U64(values) => bytemuck::cast_slice(values),
        }
    }
}

/// A type that tensors hold.
pub trait Element: Copy + 'static {
    /// What the type is called.
    const NAME: &'static str;
    /// The values, where they are of this type.
    fn of(values: &Values) -> Option<&Arc<[Self]>>;
    /// The values as those of a tensor.
    fn into_values(values: Arc<[Self]>) -> Values;
}

macro_rules! elements {
    ($($kind:ident $type:ty),*) => {$(
        impl Element for $type {
            const NAME: &'static str = stringify!($type);
            fn of(values: &Values) -> Option<&Arc<[Self]>> {
                match values {
                    Values::$kind(values) => Some(values),
                    _ => None,
                }
            }
            fn into_values(values: Arc<[Self]>) -> Values {
                Values::$kind(values)
            }
        }
        impl From<Arc<[$type]>> for Values {
            fn from(values: Arc<[$type]>) -> Self {
                Self::$kind(values)
            }
        }
        impl From<Vec<$type>> for Values {
            fn from(values: Vec<$type>) -> Self {
                Self::$kind(values.into())
            }
        }
    )*};
}
elements!(F32 f32, F64 f64, I64 i64, U8 u8, U32 u32, U64 u64);

/// A tensor and its shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Its shape; row-major.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: Values,
}

/// Tensors by name. Names of parts are joined by dots.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State(BTreeMap<String, Tensor>);

impl State {
    /// Puts the tensor `name`.
    pub fn put(&mut self, name: &str, shape: &[usize], values: impl Into<Values>) {
        let values = values.into();
        debug_assert_eq!(shape.iter().product::<usize>(), values.len(), "{name}");
        self.0.insert(name.to_owned(), Tensor { shape: shape.to_vec(), values });
    }

    /// Puts all of `part` under `name`.
    pub fn put_part(&mut self, name: &str, part: Self) {
        self.0.extend(part.0.into_iter().map(|(inner, tensor)| (format!("{name}.{inner}"), tensor)));
    }

    /// Takes all that is under `name`.
    pub fn take_part(&mut self, name: &str) -> Self {
        let prefix = format!("{name}.");
        // The character behind the dot bounds all names that begin with the prefix.
        let mut inside = self.0.split_off(&prefix);
        let mut behind = inside.split_off(&format!("{name}/"));
        self.0.append(&mut behind);
        Self(inside.into_iter().map(|(inner, tensor)| (inner[prefix.len()..].to_owned(), tensor)).collect())
    }

    /// Whether there is a tensor `name`.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Takes the tensor `name` of this type and shape, `None` standing for any extent. It is taken, so that what is left
    /// over is known not to belong.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] where there is no such tensor, or one of another type or shape.
    pub fn take<T: Element>(&mut self, name: &str, shape: &[Option<usize>]) -> Result<Arc<[T]>> {
        Ok(self.take_shaped(name, shape)?.1)
    }

    /// The same, with the shape that was found.
    ///
    /// # Errors
    /// As [`State::take`].
    pub fn take_shaped<T: Element>(&mut self, name: &str, shape: &[Option<usize>]) -> Result<(Vec<usize>, Arc<[T]>)> {
        let wanted: Vec<String> = shape.iter().map(|extent| extent.map_or("N".into(), |n| n.to_string())).collect();
        let malformed = |found: String| {
            Error::new(ErrorKind::Malformed, found).tensor(name).expected(format!(
                "{} [{}]",
                T::NAME,
                wanted.join(", ")
            ))
        };
        let tensor = self.0.remove(name).ok_or_else(|| malformed("no such tensor".into()))?;
        let fits = tensor.shape.len() == shape.len()
            && tensor.shape.iter().zip(shape).all(|(found, wanted)| wanted.is_none_or(|wanted| wanted == *found));
        let values = T::of(&tensor.values).ok_or_else(|| malformed("another type".into()))?;
        if fits { Ok((tensor.shape, Arc::clone(values))) } else { Err(malformed(format!("{:?}", tensor.shape))) }
    }

    /// The tensors, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Gives the tensor `before` another name, where it is there.
    pub(crate) fn rename(&mut self, before: &str, now: &str) {
        if let Some(tensor) = self.0.remove(before) {
            self.0.insert(now.to_owned(), tensor);
        }
    }

    /// Puts a tensor that was read.
    pub(crate) fn insert(&mut self, name: &str, tensor: Tensor) {
        self.0.insert(name.to_owned(), tensor);
    }

    /// Takes the tensor `name`, whatever it is.
    pub(crate) fn take_any(&mut self, name: &str) -> Option<Tensor> {
        self.0.remove(name)
    }

    /// Takes out tensors whose values are those of another, the same memory: by name, the name under which they stay.
    pub(crate) fn share(&mut self) -> BTreeMap<String, String> {
        let mut same = BTreeMap::new();
        let mut kept: Vec<(&str, &Tensor)> = Vec::new();
        for (name, tensor) in self.tensors() {
            match kept.iter().find(|(_, known)| known.values.is(&tensor.values) && known.shape == tensor.shape) {
                Some((known, _)) => {
                    same.insert(name.to_owned(), (*known).to_owned());
                }
                None => kept.push((name, tensor)),
            }
        }
        same.keys().for_each(|name| drop(self.0.remove(name)));
        same
    }

    /// Puts back what [`State::share`] took out.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] for a name that is there already, or that stands for nothing.
    pub(crate) fn unshare(&mut self, same: &BTreeMap<String, String>) -> Result<()> {
        for (name, known) in same {
            let Some(tensor) = self.0.get(known).filter(|_| !self.0.contains_key(name)).cloned() else {
                return Err(Error::new(ErrorKind::Malformed, format!("`{known}`"))
                    .tensor(name)
                    .expected("the name of a tensor of this file"));
            };
            self.0.insert(name.clone(), tensor);
        }
        Ok(())
    }

    /// Refuses tensors that nothing has taken.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`].
    pub fn finish(&self) -> Result<()> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(Error::new(ErrorKind::Malformed, "a tensor that belongs to nothing").tensor(name)),
        }
    }
}

/// Refuses values that are not finite.
///
/// # Errors
/// [`ErrorKind::Malformed`].
pub(crate) fn check_finite<T: Copy + Into<f64>>(name: &str, values: &[T]) -> Result<()> {
    match values.iter().position(|value| !(*value).into().is_finite()) {
        None => Ok(()),
        Some(place) => Err(Error::new(ErrorKind::Malformed, format!("{} at {place}", values[place].into()))
            .tensor(name)
            .expected("finite values")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_taken_by_name_and_leftovers_refused() {
        let mut inner = State::default();
        inner.put("a", &[2], vec![1.0f32, 2.0]);
        let mut state = State::default();
        state.put("part", &[1], vec![7u8]);
        state.put("part-2", &[1], vec![7u8]);
        state.put("part0", &[1], vec![7u8]);
        state.put_part("part", inner.clone());
        assert_eq!(state.take_part("part"), inner);
        assert!(state.take_part("part").finish().is_ok());
        for name in ["part", "part-2", "part0"] {
            assert!(state.finish().is_err());
            assert_eq!(*state.take::<u8>(name, &[Some(1)]).unwrap(), [7]);
        }
        assert!(state.finish().is_ok());
        assert!(inner.clone().take::<f64>("a", &[None]).unwrap_err().to_string().contains("f64 [N]"));
        assert!(inner.clone().take::<f32>("a", &[Some(3)]).is_err());
        assert!(inner.take::<f32>("b", &[None]).unwrap_err().to_string().contains("no such tensor"));
    }
}
