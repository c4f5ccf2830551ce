//! Files as they are opened and made: no output replaces an input, and nothing unfinished stays behind.
//!
//! This crate and `dice-onnx` open files by [`open`], [`read`] and [`read_to_string`] alone, and write them by
//! [`AtomicFile`] alone. Two tables of the process stand behind these functions:
//!
//! - *claims*: the files that a program says it will write, by [`claim_outputs`] and before it reads anything. Reading a
//!   claimed file that is not yet written is an error, and so is writing a file that was not claimed. A program
//!   that claims nothing, such as one that uses this crate as a library, is not restricted.
//! - *temporaries*: files and folders that are deleted when they are dropped. A signal drops nothing, so that
//!   its handler calls [`remove_temporaries`] before the process ends.

#![allow(clippy::disallowed_methods, reason = "this is the module in whose functions they are wrapped")]

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};

/// What the names of temporary files and folders begin and end with.
const PREFIX: &str = ".dice-";
const SUFFIX: &str = ".partial";

/// Opens `path` for reading.
///
/// # Errors
/// [`ErrorKind::Io`]; [`ErrorKind::Argument`] for a claimed output.
pub fn open(path: impl AsRef<Path>) -> Result<File> {
    let path = path.as_ref();
    let located = |error: io::Error| Error::io(path, error);
    let file = File::open(path).map_err(located)?;
    refuse_claimed(path, &file.metadata().map_err(located)?)?;
    Ok(file)
}

/// The bytes of the file `path`.
///
/// # Errors
/// As [`open`].
pub fn read(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let path = path.as_ref();
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes).map_err(|error| Error::io(path, error))?;
    Ok(bytes)
}

/// The text of the file `path`.
///
/// # Errors
/// As [`open`]; [`ErrorKind::Malformed`] for what is not UTF-8.
pub fn read_to_string(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let mut text = String::new();
    open(path)?.read_to_string(&mut text).map_err(|error| Error::io(path, error))?;
    Ok(text)
}

/// Refuses `path` (`-`: standard input) as an input where it is a claimed output, before the work that precedes reading it.
/// A file whose metadata cannot be read passes: opening the file says why.
///
/// # Errors
/// [`ErrorKind::Argument`] for a claimed output.
pub fn check_input(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let claimed = lock(&CLAIMS).as_ref().is_some_and(|claims| claims.iter().any(|claim| claim.replaces.is_some()));
    let metadata = match path == Path::new("-") {
        _ if !claimed => None,
        true => metadata_of_stream(&io::stdin()),
        false => fs::metadata(path).ok(),
    };
    metadata.map_or(Ok(()), |metadata| refuse_claimed(path, &metadata))
}

/// The identity of a file, the same for all its names.
#[cfg(unix)]
type FileId = (u64, u64);

/// Without numbers of files, hard links to one file are told apart.
#[cfg(not(unix))]
type FileId = PathBuf;

#[cfg(unix)]
fn id_of(_path: &Path, metadata: &Metadata) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn id_of(path: &Path, _metadata: &Metadata) -> Option<FileId> {
    path.canonicalize().ok()
}

#[cfg(unix)]
fn metadata_of_stream(stream: &impl std::os::fd::AsFd) -> Option<Metadata> {
    File::from(stream.as_fd().try_clone_to_owned().ok()?).metadata().ok()
}

#[cfg(not(unix))]
fn metadata_of_stream<T>(_stream: &T) -> Option<Metadata> {
    None
}

/// A file that this process will write.
struct Claim {
    /// As the user names it.
    shown: String,
    /// Where it will be, links resolved.
    place: PathBuf,
    /// The regular file that stands there until it is written.
    replaces: Option<FileId>,
    written: bool,
}

/// `None` until something is claimed.
static CLAIMS: Mutex<Option<Vec<Claim>>> = Mutex::new(None);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says which files this process will write, standard output among them, before it reads any.
///
/// From then on [`open`] refuses these files under all their names, symbolic and hard links included, until they are written; and
/// [`AtomicFile::create`] refuses every other destination. May be called again for further outputs.
///
/// # Errors
/// [`ErrorKind::Argument`] for two outputs that are one file.
pub fn claim_outputs(paths: impl IntoIterator<Item: AsRef<Path>>) -> Result<()> {
    let mut guard = lock(&CLAIMS);
    let claims = guard.get_or_insert_with(|| claim_of_standard_output().into_iter().collect());
    for path in paths {
        let path = path.as_ref();
        let existing = fs::metadata(path).ok();
        // Devices and pipes can be written to twice.
        let is_regular = existing.as_ref().is_none_or(Metadata::is_file);
        let replaces = existing.filter(Metadata::is_file).and_then(|metadata| id_of(path, &metadata));
        let claim = Claim { shown: path.display().to_string(), place: place_of(path), replaces, written: false };
        let same =
            |other: &&Claim| other.place == claim.place || other.replaces.is_some() && other.replaces == claim.replaces;
        if let Some(other) = claims.iter().find(same).filter(|_| is_regular) {
            return Err(another_file(&claim.shown, &other.shown, "another output of this very command"));
        }
        claims.push(claim);
    }
    Ok(())
}

fn claim_of_standard_output() -> Option<Claim> {
    let metadata = metadata_of_stream(&io::stdout()).filter(Metadata::is_file)?;
    let shown = "standard output".to_owned();
    Some(Claim { place: PathBuf::from(&shown), shown, replaces: id_of(Path::new("-"), &metadata), written: false })
}

/// The absolute path at which a file written to `path` will be found.
fn place_of(path: &Path) -> PathBuf {
    let in_folder = || Some(folder_of(path).canonicalize().ok()?.join(path.file_name()?));
    path.canonicalize().ok().or_else(in_folder).unwrap_or_else(|| path.to_path_buf())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn refuse_claimed(path: &Path, metadata: &Metadata) -> Result<()> {
    let claims = lock(&CLAIMS);
    let claims = claims.iter().flatten().filter(|claim| !claim.written && claim.replaces.is_some());
    let id = if metadata.is_file() { id_of(path, metadata) } else { None };
    match claims.into_iter().find(|claim| claim.replaces == id) {
        Some(claim) => Err(another_file(&claim.shown, &path.display().to_string(), "an input of this very command")),
        None => Ok(()),
    }
}

fn another_file(output: &str, other: &str, what: &str) -> Error {
    let found = if output == other { what.to_owned() } else { format!("{other}, {what}") };
    Error::new(ErrorKind::Argument, found).file(output).expected("another file to write")
}

/// Refuses an output that was not claimed, where outputs are.
fn check_claimed(destination: &Path) -> Result<()> {
    let place = place_of(destination);
    let is_claimed = lock(&CLAIMS).as_ref().is_none_or(|claims| claims.iter().any(|claim| claim.place == place));
    if is_claimed || lock(&TEMPORARIES).iter().any(|temporary| destination.starts_with(temporary)) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Argument, "a file that was not claimed")
        .file(destination.display())
        .expected("one of the outputs named before anything was read"))
}

/// Lets `destination` be read: from now on it holds what this process wrote.
fn mark_written(destination: &Path) {
    let place = place_of(destination);
    let mut claims = lock(&CLAIMS);
    claims.iter_mut().flatten().filter(|claim| claim.place == place).for_each(|claim| claim.written = true);
}

/// Temporary files and folders that exist now.
static TEMPORARIES: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Deletes the temporary files and folders of this process, and lets it make and rename no more: its other threads wait for
/// ever where they try. For the handler of a signal, which ends the process next.
pub fn remove_temporaries() {
    let temporaries = lock(&TEMPORARIES);
    // A folder in which another thread is just making a file may take a second attempt.
    for path in temporaries.iter().chain(temporaries.iter()) {
        remove(path);
    }
    std::mem::forget(temporaries);
}

/// A temporary file that cannot be deleted is left: the run has its result, or its own error.
fn remove(path: &Path) {
    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

/// A file or folder that is deleted when dropped.
#[derive(Debug)]
pub(crate) struct Temporary {
    path: PathBuf,
}

impl Temporary {
    /// Makes and registers at once, so that a signal in between leaves nothing.
    fn make<T>(make: impl FnOnce() -> io::Result<(T, PathBuf)>) -> io::Result<(T, Self)> {
        let mut temporaries = lock(&TEMPORARIES);
        let (made, path) = make()?;
        temporaries.insert(path.clone());
        Ok((made, Self { path }))
    }

    /// A file of the user alone, in the system's folder of temporary files.
    pub(crate) fn file() -> io::Result<(File, Self)> {
        Self::make(|| Ok(named().tempfile()?.keep()?))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its final name.
    fn rename(self, destination: &Path) -> io::Result<()> {
        let mut temporaries = lock(&TEMPORARIES);
        fs::rename(&self.path, destination)?;
        temporaries.remove(&self.path);
        drop(temporaries);
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let mut temporaries = lock(&TEMPORARIES);
        if temporaries.remove(&self.path) {
            remove(&self.path);
        }
    }
}

fn named() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX);
    builder
}

/// A file without a name in `folder`: it is gone when closed, however the process ends.
pub(crate) fn nameless(folder: &Path) -> io::Result<File> {
    // Some systems name it for a moment, in which no signal may end the process.
    let _temporaries = lock(&TEMPORARIES);
    tempfile::tempfile_in(folder)
}

/// A folder that is deleted with all that is in it when dropped, and when a signal ends the process.
#[derive(Debug)]
pub struct TemporaryFolder(Temporary);

impl TemporaryFolder {
    /// A folder of the user alone, in the system's folder of temporary files.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn new() -> Result<Self> {
        let made = Temporary::make(|| Ok(((), named().tempdir()?.keep())));
        made.map(|((), folder)| Self(folder)).map_err(|error| Error::io(std::env::temp_dir(), error))
    }

    /// The new folder `path`, which stays if it is [kept](Self::keep) in the end.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], also where it exists.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let made = Temporary::make(|| fs::create_dir(path).map(|()| ((), path.to_path_buf())));
        made.map(|((), folder)| Self(folder)).map_err(|error| Error::io(path, error))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Lets the folder stay.
    pub fn keep(self) {
        lock(&TEMPORARIES).remove(&self.0.path);
    }
}

/// A file that is written beside its destination and renamed onto it when complete; dropped before that, it vanishes.
///
/// A symbolic link is followed. What is no regular file (a device, a pipe) is written to as it is. A file that replaces another
/// takes its mode, and its owner and group where the system allows that; a new one has the rights of any new file.
pub struct AtomicFile {
    destination: PathBuf,
    file: BufWriter<File>,
    /// The file under its temporary name; `None` where the destination is written to directly.
    temporary: Option<Temporary>,
}

impl AtomicFile {
    /// Starts a file that will be `destination`.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where its directory cannot be written to, or `destination` is a directory or a file that must not be
    /// written to; [`ErrorKind::Argument`] where outputs are [claimed](claim_outputs) and this is none of them.
    pub fn create(destination: impl AsRef<Path>) -> Result<Self> {
        let destination = destination.as_ref();
        check_claimed(destination)?;
        let existing = fs::metadata(destination).ok();
        match existing.filter(|existing| !existing.is_dir()) {
            Some(existing) if existing.is_file() => Self::replacing(destination, &existing),
            Some(_device) => {
                let file =
                    File::options().write(true).open(destination).map_err(|error| Error::io(destination, error))?;
                Ok(Self { destination: destination.to_path_buf(), file: BufWriter::new(file), temporary: None })
            }
            None if destination.is_dir() => {
                Err(Error::new(ErrorKind::Io, "a directory").file(destination.display()).expected("a file to write"))
            }
            None => Self::beside(destination, destination.to_path_buf()),
        }
    }

    /// Starts a file that replaces none: it needs no claim.
    ///
    /// # Errors
    /// As [`AtomicFile::create`]; [`ErrorKind::Io`] where `destination` exists.
    pub fn create_new(destination: impl AsRef<Path>) -> Result<Self> {
        let destination = destination.as_ref();
        if destination.symlink_metadata().is_ok() {
            return Err(Error::io(destination, io::ErrorKind::AlreadyExists.into()));
        }
        Self::beside(destination, destination.to_path_buf())
    }

    fn replacing(destination: &Path, existing: &Metadata) -> Result<Self> {
        let located =
            |error: io::Error| Error::io(destination, error).fix("write to another file, or change its rights");
        let target = destination.canonicalize().map_err(|error| Error::io(destination, error))?;
        // Renaming needs rights on the folder alone, and the superuser has all: the file's own are asked for here.
        if existing.permissions().readonly() {
            return Err(located(io::ErrorKind::PermissionDenied.into()));
        }
        File::options().write(true).open(&target).map_err(located)?;
        let made = Self::beside(destination, target)?;
        take_rights(made.file.get_ref(), existing).map_err(|error| Error::io(destination, error))?;
        Ok(made)
    }

    fn beside(shown: &Path, target: PathBuf) -> Result<Self> {
        let folder = folder_of(&target);
        if !folder.is_dir() {
            return Err(Error::new(ErrorKind::Io, "no such directory")
                .file(shown.display())
                .fix(format!("create {} first", folder.display())));
        }
        let mut builder = named();
        // The rights that any new file gets, not the private ones of temporary files.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        // Only the kind of an error is kept: its text would name the temporary file.
        let made = Temporary::make(|| Ok(builder.tempfile_in(folder)?.keep()?));
        let (file, temporary) = made.map_err(|error| Error::io(shown, error.kind().into()))?;
        Ok(Self { destination: target, file: BufWriter::with_capacity(1 << 16, file), temporary: Some(temporary) })
    }

    /// Makes the file durable and gives it its name.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], for instance for a full disk; nothing is left behind then.
    pub fn commit(self) -> Result<()> {
        let Self { destination, file, temporary } = self;
        let located = |error: io::Error| located(&destination, error);
        let file = file.into_inner().map_err(|error| located(error.into_error()))?;
        let Some(temporary) = temporary else { return Ok(()) };
        file.sync_all().map_err(located)?;
        drop(file);
        temporary.rename(&destination).map_err(located)?;
        mark_written(&destination);
        Ok(())
    }

    pub(super) fn located(&self, error: io::Error) -> Error {
        located(&self.destination, error)
    }

    /// Where the file will be.
    #[cfg(feature = "columns")]
    pub(super) fn destination(&self) -> &Path {
        &self.destination
    }
}

impl Write for AtomicFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.file.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl io::Seek for AtomicFile {
    fn seek(&mut self, position: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

fn located(path: &Path, error: io::Error) -> Error {
    let too_large = error.kind() == io::ErrorKind::FileTooLarge;
    let error = Error::io(path, error);
    if too_large { error.fix("the system or a limit (`ulimit -f`) allows no file of that size") } else { error }
}

/// Gives `file` the owner, group and mode of the file that it will replace. Rights of a group that cannot be kept are
/// not given to another one.
#[cfg(unix)]
fn take_rights(file: &File, existing: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    // Only the superuser gives files away; members of a group may hand them to it.
    let _ = fchown(file, Some(existing.uid()), None);
    let _ = fchown(file, None, Some(existing.gid()));
    let mode = existing.mode() & 0o777;
    let keeps_group = file.metadata()?.gid() == existing.gid();
    let mode = if keeps_group { mode } else { mode & !0o070 | (mode & 0o007) << 3 & mode };
    file.set_permissions(fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn take_rights(_file: &File, _existing: &Metadata) -> io::Result<()> {
    Ok(())
}
