//! Arrow IPC, message by message.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::Message;
use arrow_ipc::convert::fb_to_schema;
use arrow_ipc::reader::{read_dictionary, read_record_batch};
use arrow_schema::{ArrowError, SchemaRef};

use crate::error::{Error, ErrorKind, Result};
use crate::io::guard::decode;

/// The messages of an Arrow IPC stream; a file is the same stream behind a signature and before a footer.
///
/// Messages are framed here and not by the arrow crate, whose file reader allocates what the footer claims.
pub(super) struct IpcMessages {
    input: BufReader<File>,
    schema: Option<SchemaRef>,
    dictionaries: HashMap<i64, ArrayRef>,
    /// Bytes of all dictionaries, which are kept to the end of the file.
    dictionary_bytes: u64,
    /// Files must end with the end marker; streams may simply end.
    is_file: bool,
    done: bool,
}

const SIGNATURE: &[u8; 6] = b"ARROW1";

const CONTINUATION: [u8; 4] = [0xff; 4];

/// More than the buffers of a sane record batch take together, or all dictionaries; a claim beyond it is not tried.
const LARGEST_BATCH: u64 = 512 << 20;

impl IpcMessages {
    pub(super) fn open(file: File) -> Result<Self> {
        let mut input = BufReader::with_capacity(1 << 18, file);
        let start = input.fill_buf().map_err(|error| Error::caused_by(ErrorKind::Io, error))?;
        let start = start[..start.len().min(SIGNATURE.len() + 64)].to_vec();
        let is_file = start.starts_with(SIGNATURE);
        if is_file {
            ends_with_signature(input.get_ref())?;
            // Writers pad the signature with zeros to 8, or to 64, bytes.
            let padding = start[SIGNATURE.len()..].iter().take_while(|byte| **byte == 0).count();
            input.consume(SIGNATURE.len() + padding);
        } else if !start.starts_with(&CONTINUATION) {
            let error = broken("other bytes").expected("an Arrow IPC file or stream (Feather version 2)");
            return Err(if start.starts_with(b"FEA1") { error.fix("write Feather version 2") } else { error });
        }
        Ok(Self { input, schema: None, dictionaries: HashMap::new(), dictionary_bytes: 0, is_file, done: false })
    }

    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>> {
        while !self.done {
            let Some((metadata, body)) = self.message()? else {
                self.done = true;
                break;
            };
            let message = root_of(&metadata)?;
            let body = Buffer::from_vec(body);
            let version = message.version();
            if let Some(schema) = message.header_as_schema() {
                if self.schema.is_some() {
                    return Err(broken("a second schema"));
                }
                self.schema = Some(Arc::new(decoded(|| Ok(fb_to_schema(schema)))?));
            } else if let (Some(batch), Some(schema)) = (message.header_as_dictionary_batch(), &self.schema) {
                let dictionaries = &mut self.dictionaries;
                decoded(|| read_dictionary(&body, batch, schema, dictionaries, &version))?;
            } else if let (Some(batch), Some(schema)) = (message.header_as_record_batch(), &self.schema) {
                let batch = decoded(|| {
                    read_record_batch(&body, batch, Arc::clone(schema), &self.dictionaries, None, &version)
                })?;
                return Ok(Some(batch));
            } else {
                return Err(broken("a message of another kind, or before the schema"));
            }
        }
        Ok(None)
    }

    /// The next message, as its metadata and its body.
    fn message(&mut self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let frame = self.bytes(8)?;
        if frame.is_empty() && !self.is_file {
            return Ok(None);
        }
        if frame.len() < 8 || frame[..4] != CONTINUATION {
            return Err(broken("the end of the data"));
        }
        let length = u32::from_le_bytes([frame[4], frame[5], frame[6], frame[7]]);
        if length == 0 {
            return Ok(None);
        }
        let metadata = self.exactly(length.into())?;
        let message = root_of(&metadata)?;
        let body_length = u64::try_from(message.bodyLength()).map_err(|_| broken("a body of negative length"))?;
        let compressed: Vec<(i64, i64)> = message
            .header_as_record_batch()
            .or_else(|| message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data()))
            .filter(|batch| batch.compression().is_some())
            .and_then(|batch| batch.buffers())
            .map(|buffers| buffers.iter().map(|buffer| (buffer.offset(), buffer.length())).collect())
            .unwrap_or_default();
        let body = self.exactly(body_length)?;
        let claimed = check_compressed(&body, &compressed)?;
        if message.header_as_dictionary_batch().is_some() {
            self.dictionary_bytes = self.dictionary_bytes.saturating_add(claimed).saturating_add(body_length);
            check_batch(self.dictionary_bytes)?;
        }
        Ok(Some((metadata, body)))
    }

    fn exactly(&mut self, count: u64) -> Result<Vec<u8>> {
        let bytes = self.bytes(count)?;
        if bytes.len() as u64 == count { Ok(bytes) } else { Err(broken("the end of the data")) }
    }

    /// Reads up to `count` bytes; memory grows with the bytes read.
    fn bytes(&mut self, count: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = (&mut self.input).take(count).read_to_end(&mut bytes);
        read.map_err(|error| Error::caused_by(ErrorKind::Io, error))?;
        Ok(bytes)
    }
}

fn root_of(metadata: &[u8]) -> Result<Message<'_>> {
    arrow_ipc::root_as_message(metadata).map_err(|error| broken(&error.to_string()))
}

/// A file ends as it starts. The position of `file` is left as it was.
fn ends_with_signature(file: &File) -> Result<()> {
    let attempt = || -> std::io::Result<bool> {
        let mut file = file.try_clone()?;
        let position = file.stream_position()?;
        let mut end = [0; SIGNATURE.len()];
        file.seek(SeekFrom::End(-(SIGNATURE.len() as i64)))?;
        file.read_exact(&mut end)?;
        file.seek(SeekFrom::Start(position))?;
        Ok(&end == SIGNATURE)
    };
    match attempt() {
        Ok(true) => Ok(()),
        Ok(false) => Err(broken("the end of the data")),
        Err(error) => Err(Error::caused_by(ErrorKind::Io, error)),
    }
}

/// The sum of what compressed buffers of a message claim to be once they are not: each starts with that number, which the
/// decoder allocates at once.
fn check_compressed(body: &[u8], buffers: &[(i64, i64)]) -> Result<u64> {
    let mut total = 0u64;
    for (offset, length) in buffers {
        if *length == 0 {
            continue;
        }
        let start = usize::try_from(*offset).ok().and_then(|start| body.get(start..));
        let Some(prefix) = start.and_then(|rest| rest.first_chunk::<8>()) else {
            return Err(broken("a buffer outside its message"));
        };
        // -1 marks a buffer that is not compressed after all.
        total = total.saturating_add(u64::try_from(i64::from_le_bytes(*prefix)).unwrap_or(0));
        check_batch(total)?;
    }
    Ok(total)
}

fn check_batch(bytes: u64) -> Result<()> {
    if bytes <= LARGEST_BATCH {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, format!("{bytes} bytes or more of a record batch, or of dictionaries"))
        .expected(format!("at most {LARGEST_BATCH} bytes, uncompressed"))
        .fix("write smaller record batches"))
}

fn decoded<T>(work: impl FnOnce() -> std::result::Result<T, ArrowError>) -> Result<T> {
    decode(work, |found| {
        Error::new(ErrorKind::Malformed, found)
            .expected("a complete Arrow IPC file")
            .fix("the file is truncated or corrupt: write it again")
    })
}

fn broken(found: &str) -> Error {
    // Decoders of flatbuffers append a trace of many lines.
    Error::new(ErrorKind::Malformed, found.lines().next().unwrap_or_default())
        .expected("a complete Arrow IPC file or stream")
        .fix("the file is truncated or corrupt: write it again")
}
