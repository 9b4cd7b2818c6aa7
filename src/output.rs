//! Where output goes. A regular file is replaced as a whole: what is new is written beside it and then takes its
//! name, owner and mode. A symbolic link is followed. What is no regular file (a pipe, a terminal, a device) is
//! written to as it is, `-` is standard output, and so is whatever this process has open as `/dev/fd/N`.

use crate::error::{Error, Result};
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeSet;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use tempfile::TempPath;

/// What a path leads to.
enum Place {
    Stdout,
    /// What this process has open under a number.
    #[cfg(unix)]
    Open(std::os::fd::RawFd),
    /// Something that is there, but is no regular file.
    Special(PathBuf),
    /// A regular file with what is known of it, or a name that nothing has yet.
    File(PathBuf, Option<Metadata>),
}

/// Links that lead to one another are given up after as many as the system's own limit.
const MOST_LINKS: usize = 40;

impl Place {
    /// What `path` leads to by all of its links.
    fn of(path: &Path) -> io::Result<Self> {
        if is_stdout(path) {
            return Ok(Place::Stdout);
        }
        if path.as_os_str().is_empty() {
            return Err(ErrorKind::NotFound.into());
        }
        let mut path = path.to_owned();
        for _ in 0..MOST_LINKS {
            if names_folder(&path) {
                return Err(ErrorKind::IsADirectory.into());
            }
            if let Some(found) = Self::of_process(&path) {
                return Ok(found);
            }
            let metadata = match fs::symlink_metadata(&path) {
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Place::File(path, None)),
                found => found?,
            };
            if metadata.is_dir() {
                return Err(ErrorKind::IsADirectory.into());
            }
            if metadata.is_file() {
                return Ok(Place::File(path, Some(metadata)));
            }
            if !metadata.is_symlink() {
                return Ok(Place::Special(path));
            }
            path = folder(&path).join(fs::read_link(&path)?);
        }
        Err(io::Error::other("too many symbolic links"))
    }

    /// Links of `/proc` name open files, which need not have a name of their own any more.
    #[cfg(target_os = "linux")]
    fn of_process(path: &Path) -> Option<Self> {
        let folder = fs::canonicalize(folder(path)).ok().filter(|folder| folder.starts_with("/proc"))?;
        let own = folder == Path::new("/proc").join(std::process::id().to_string()).join("fd");
        let number = path.file_name().and_then(|name| name.to_str()?.parse().ok()).filter(|_| own);
        Some(number.map_or_else(|| Place::Special(path.to_owned()), Place::Open))
    }

    #[cfg(not(target_os = "linux"))]
    fn of_process(_: &Path) -> Option<Self> {
        None
    }

    /// Whether it could be written; nothing is opened that would wait for a reader, or tell one of an end.
    fn check(&self) -> io::Result<()> {
        match self {
            Place::Stdout => Ok(()),
            #[cfg(unix)]
            Place::Open(number) => open(*number).map(drop),
            Place::Special(path) => special::check(path),
            Place::File(path, None) => Temporary::beside(path).map(drop),
            Place::File(path, Some(_)) => match open_again(path).and_then(|_| Temporary::beside(path)) {
                Err(e) if takes_no_file(&e) => open_again(path).map(drop),
                other => other.map(drop),
            },
        }
    }
}

/// Whether `path` ends in a way that only a folder's name does: `a/`, `a/.`, `a/..`. Rust's components leave out what
/// follows the last name, which the system does not.
fn names_folder(path: &Path) -> bool {
    let last = path.as_os_str().as_encoded_bytes().rsplit(|byte| *byte == b'/').next();
    matches!(last, Some(b"" | b"." | b".."))
}

/// Whether `path` is `-`, standard output. A file of that name is `./-`.
pub fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Whether `path` leads to a regular file, or to nothing yet: something that can be written, read and written again.
pub fn is_file(path: &Path) -> bool {
    matches!(Place::of(path), Ok(Place::File(..)))
}

/// Whether `path` could be written: hours of work should not end in a wrong folder.
///
/// # Errors
/// [`Error::Io`] where it is a folder, may not be written, or lies in a folder that takes no file.
pub fn check(path: &Path) -> Result<()> {
    Place::of(path).and_then(|place| place.check()).map_err(|e| Error::io("write", path, e))
}

/// Writes `bytes` to `path`.
///
/// # Errors
/// As [`write_with`].
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |file| file.write_all(bytes).map_err(|e| Error::io("write", path, e)))
}

/// Lets `fill` write to `path`; a regular file is replaced when `fill` is done.
///
/// # Errors
/// [`Error::Io`] or what `fill` gives; an earlier regular file is then untouched, unless it can only be written
/// where it lies: its folder takes no file, or its owner could not be kept.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let failed = |e| Error::io("write", path, e);
    match Place::of(path).map_err(failed)? {
        Place::Stdout => {
            let mut stdout = io::stdout().lock();
            fill(&mut stdout)?;
            stdout.flush().map_err(failed)
        }
        #[cfg(unix)]
        Place::Open(number) => {
            // What this process has said there comes before.
            io::stdout()
                .flush()
                .and_then(|()| open(number))
                .map_err(failed)
                .and_then(|file| write_into(path, file, fill))
        }
        Place::Special(target) => {
            let file = OpenOptions::new().write(true).open(target).map_err(failed)?;
            write_into(path, file, fill)
        }
        Place::File(target, old) => replace(path, &target, old.as_ref(), fill),
    }
}

/// Something that is written piece by piece, each of them at once.
pub struct Appended {
    /// Behind what is there.
    pub file: File,
    /// Whether it is a regular file of this name, whose earlier content may be cut.
    pub is_file: bool,
}

/// Opens `path` to be written behind what is there; makes a file where there is none.
///
/// # Errors
/// [`Error::Io`].
pub fn append(path: &Path) -> Result<Appended> {
    let place = Place::of(path);
    let is_file = matches!(place, Ok(Place::File(..)));
    let opened = place.and_then(|place| match place {
        Place::Stdout => stdout(),
        #[cfg(unix)]
        Place::Open(number) => open(number),
        Place::Special(target) => OpenOptions::new().write(true).open(target),
        Place::File(target, _) => OpenOptions::new().append(true).create(true).open(target),
    });
    Ok(Appended { file: opened.map_err(|e| Error::io("write", path, e))?, is_file })
}

/// Standard output, past the buffer of this process.
#[cfg(unix)]
fn stdout() -> io::Result<File> {
    use std::os::fd::AsFd;
    let mut stdout = io::stdout();
    stdout.flush()?;
    Ok(stdout.as_fd().try_clone_to_owned()?.into())
}

#[cfg(not(unix))]
fn stdout() -> io::Result<File> {
    Err(ErrorKind::Unsupported.into())
}

/// Lets `fill` write to `file`, which messages call `path`.
fn write_into(path: &Path, file: File, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut file = BufWriter::new(file);
    fill(&mut file)?;
    file.flush().map_err(|e| Error::io("write", path, e))
}

/// Puts what `fill` writes in place of the file `target`, of which `old` is known.
fn replace(
    path: &Path,
    target: &Path,
    old: Option<&Metadata>,
    fill: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let failed = |e| Error::io("write", path, e);
    if old.is_some() {
        // What may not be written may not be replaced either.
        open_again(target).map_err(failed)?;
    }
    let mut temporary = match Temporary::beside(target) {
        Err(e) if old.is_some() && takes_no_file(&e) => {
            return write_into(path, File::create(target).map_err(failed)?, fill);
        }
        made => made.map_err(failed)?,
    };
    let mut file = BufWriter::new(&temporary.file);
    fill(&mut file)?;
    file.flush().map_err(failed)?;
    drop(file);
    let kept = old.is_none_or(|old| keep(&temporary.file, old).is_ok());
    temporary.file.sync_all().map_err(failed)?;
    if kept {
        match temporary.persist(target) {
            // A file that is mounted by itself, as in a container.
            Err((e, back))
                if old.is_some() && matches!(e.kind(), ErrorKind::ResourceBusy | ErrorKind::CrossesDevices) =>
            {
                temporary = back;
            }
            done => return done.map_err(|(e, _)| failed(e)),
        }
    }
    let mut content = File::open(&temporary.path).map_err(failed)?;
    let mut file = File::create(target).map_err(failed)?;
    io::copy(&mut content, &mut file).and_then(|_| file.sync_all()).map_err(failed)
}

/// A file that is there, opened to be written without a change.
fn open_again(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

/// Whether a folder refused a new file: a file that is there may take new content yet.
fn takes_no_file(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

/// Gives `file` the owner and the mode of the file that it is to replace.
#[cfg(unix)]
fn keep(file: &File, old: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        fchown(file, Some(old.uid()), Some(old.gid()))?;
    }
    file.set_permissions(old.permissions())
}

#[cfg(not(unix))]
fn keep(file: &File, old: &Metadata) -> io::Result<()> {
    file.set_permissions(old.permissions())
}

/// What this process has open as `number`, if it may write there.
#[cfg(unix)]
fn open(number: std::os::fd::RawFd) -> io::Result<File> {
    use std::os::fd::BorrowedFd;
    // SAFETY: fcntl takes any number and says so where it is none of an open file.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & libc::O_ACCMODE == libc::O_RDONLY {
        return Err(ErrorKind::PermissionDenied.into());
    }
    // SAFETY: it is open, as the flags show; it is only duplicated.
    Ok(unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned()?.into())
}

/// What is no regular file.
mod special {
    use std::io;
    use std::path::Path;

    #[cfg(unix)]
    pub fn check(path: &Path) -> io::Result<()> {
        use std::os::unix::{ffi::OsStrExt, fs::FileTypeExt};
        if std::fs::metadata(path)?.file_type().is_socket() {
            return Err(io::Error::from_raw_os_error(libc::ENXIO));
        }
        let text = std::ffi::CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: `text` ends with NUL and lives during the call.
        if unsafe { libc::access(text.as_ptr(), libc::W_OK) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    #[cfg(not(unix))]
    pub fn check(path: &Path) -> io::Result<()> {
        std::fs::metadata(path).map(drop)
    }
}

/// The folder of `path`.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Temporary files that have not taken their names yet.
static UNDER_WAY: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Removes the temporary files of this process, which is about to end: no write of it ends after this.
pub fn discard() {
    let under_way = UNDER_WAY.lock();
    for path in under_way.iter() {
        // What is gone already needs no removing, and nobody is left to hear of the rest.
        let _ = fs::remove_file(path);
    }
    // Whoever writes waits from here on.
    MutexGuard::leak(under_way);
}

/// A temporary file beside the one that it is to become; it goes with this handle, or by [`discard`].
struct Temporary {
    file: File,
    path: TempPath,
    _listed: Listed,
}

/// A path in [`UNDER_WAY`].
struct Listed(PathBuf);

impl Drop for Listed {
    fn drop(&mut self) {
        UNDER_WAY.lock().remove(&self.0);
    }
}

impl Temporary {
    fn beside(path: &Path) -> io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        {
            // The mode a plain `open` would ask for; the process's umask applies.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        let mut under_way = UNDER_WAY.lock();
        let (file, path) = builder.prefix(".bespoke-").tempfile_in(folder(path))?.into_parts();
        under_way.insert(path.to_path_buf());
        let _listed = Listed(path.to_path_buf());
        Ok(Self { file, path, _listed })
    }

    /// Takes the name `target`, or gives the file back.
    fn persist(self, target: &Path) -> std::result::Result<(), (io::Error, Self)> {
        let Self { file, path, _listed } = self;
        let under_way = UNDER_WAY.lock();
        let done = path.persist(target);
        drop(under_way);
        done.map_err(|e| (e.error, Self { file, path: e.path, _listed }))
    }
}
