//! Features as one safetensors file, written as they come.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::Path;

use safetensors::Dtype;

use crate::error::{Error, ErrorKind, Result};
use crate::features::{Block, Ids};
use crate::head::LinearHead;
use crate::io::files::{AtomicFile, nameless};
use crate::io::write::header::HeaderWriter;

/// Writes features as they come, as one safetensors file that `dice` reads back; memory does not grow with their number.
///
/// Tensors: `features` f32 `[N, D]`; `labels` i64 `[N]` and `ids` (u8: UTF-8, one name a line; or i64 or u64 `[N]`) where blocks
/// have them; and
/// the head as `weight` f32 `[C, D]` and `bias` f32 `[C]` where it is given. Atomic.
pub struct FeaturesWriter {
    file: AtomicFile,
    units: usize,
    rows: usize,
    features: Spill,
    labels: Spill,
    ids: Spill,
    /// The element type of the ids, once there are any.
    id_type: Option<Dtype>,
}

/// Bytes on their way into a file whose header cannot be written yet: kept in a nameless file beside it.
struct Spill {
    file: BufWriter<File>,
    bytes: usize,
    /// Rows whose values these are.
    rows: usize,
}

impl Spill {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len();
        self.file.write_all(bytes)
    }

    fn copy_to(self, output: &mut impl Write) -> io::Result<()> {
        let mut written = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        written.rewind()?;
        io::copy(&mut written, output).map(drop)
    }
}

impl FeaturesWriter {
    /// Starts the file `destination` of features of `units` values.
    ///
    /// # Errors
    /// As [`AtomicFile::create`].
    pub fn create(destination: impl AsRef<Path>, units: usize) -> Result<Self> {
        let destination = destination.as_ref();
        let file = AtomicFile::create(destination)?;
        let directory = destination.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let spill = || -> Result<Spill> {
            let made = nameless(directory).map_err(|error| Error::io(destination, error))?;
            Ok(Spill { file: BufWriter::with_capacity(1 << 16, made), bytes: 0, rows: 0 })
        };
        Ok(Self { file, units, rows: 0, features: spill()?, labels: spill()?, ids: spill()?, id_type: None })
    }

    /// Rows written so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Appends the rows of `block`. Control characters in ids are escaped.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] for another number of units, [`ErrorKind::NotFinite`] for values that no detector could use,
    /// [`ErrorKind::Io`].
    pub fn write(&mut self, block: &Block) -> Result<()> {
        if block.units != self.units {
            return Err(Error::new(ErrorKind::Shape, format!("[N, {}]", block.units))
                .tensor("features")
                .expected(format!("[N, {}]", self.units)));
        }
        if let Some(place) = block.features.iter().position(|value| !value.is_finite()) {
            let (row, column) = (place / block.units, place % block.units);
            return Err(Error::new(ErrorKind::NotFinite, format!("{} in column {column}", block.features[place]))
                .file(block.id(row))
                .tensor("features")
                .expected("finite values")
                .fix("is the preprocessing that of the network?"));
        }
        if let Some(ids) = &block.ids {
            let dtype = match ids {
                Ids::Text(_) => Dtype::U8,
                Ids::Integer(_) => Dtype::I64,
                Ids::Unsigned(_) => Dtype::U64,
            };
            if *self.id_type.get_or_insert(dtype) != dtype {
                return Err(Error::new(ErrorKind::Malformed, ids.kind()).tensor("ids").expected("ids of one type"));
            }
        }
        let mut write = || -> io::Result<()> {
            self.features.write(bytemuck::cast_slice(&block.features))?;
            if let Some(labels) = &block.labels {
                self.labels.write(bytemuck::cast_slice(labels))?;
                self.labels.rows += labels.len();
            }
            if let Some(ids) = &block.ids {
                self.ids.rows += ids.len();
                match ids {
                    Ids::Text(all) => all.iter().try_for_each(|id| self.ids.write(line(id).as_bytes()))?,
                    Ids::Integer(all) => self.ids.write(bytemuck::cast_slice(all))?,
                    Ids::Unsigned(all) => self.ids.write(bytemuck::cast_slice(all))?,
                }
            }
            Ok(())
        };
        write().map_err(|error| self.file.located(error))?;
        self.rows += block.rows();
        Ok(())
    }

    /// Completes the file.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where some blocks had labels or ids and others none, [`ErrorKind::Io`].
    pub fn finish(self, head: Option<&LinearHead>, metadata: BTreeMap<String, String>) -> Result<()> {
        let Self { mut file, units, rows, features, labels, ids, id_type } = self;
        for (name, part) in [("labels", &labels), ("ids", &ids)] {
            if part.rows != rows && part.rows != 0 {
                return Err(Error::new(ErrorKind::Shape, format!("{} of {rows} rows", part.rows))
                    .tensor(name)
                    .expected("one for each row, or none"));
            }
        }
        let mut header = HeaderWriter::default();
        // Types of the widest values first, so that each tensor is aligned.
        if labels.rows > 0 {
            header.declare("labels", Dtype::I64, &[rows], labels.bytes);
        }
        let numbers = id_type.filter(|dtype| *dtype != Dtype::U8);
        if let Some(dtype) = numbers {
            header.declare("ids", dtype, &[rows], ids.bytes);
        }
        header.declare("features", Dtype::F32, &[rows, units], features.bytes);
        if let Some(head) = head {
            let (classes, units) = (head.classes(), head.units());
            header.declare("weight", Dtype::F32, &[classes, units], classes * units * 4);
            header.declare("bias", Dtype::F32, &[classes], classes * 4);
        }
        if let Some(Dtype::U8) = id_type {
            header.declare("ids", Dtype::U8, &[ids.bytes], ids.bytes);
        }
        let header = header.bytes(metadata)?;
        let write = || -> io::Result<()> {
            file.write_all(&header)?;
            labels.copy_to(&mut file)?;
            let (first, last) = if numbers.is_some() { (Some(ids), None) } else { (None, Some(ids)) };
            first.map_or(Ok(()), |ids| ids.copy_to(&mut file))?;
            features.copy_to(&mut file)?;
            if let Some(head) = head {
                for value in head.weight().iter().chain(head.bias()) {
                    file.write_all(&value.to_le_bytes())?;
                }
            }
            last.map_or(Ok(()), |ids| ids.copy_to(&mut file))
        };
        write().map_err(|error| file.located(error))?;
        file.commit()
    }
}

/// An id as a line, with control characters escaped.
fn line(id: &str) -> String {
    let mut line = String::with_capacity(id.len() + 1);
    for letter in id.chars() {
        match letter.is_control() {
            true => line.extend(letter.escape_default()),
            false => line.push(letter),
        }
    }
    line.push('\n');
    line
}
