//! Where output goes: in a folder of files, links, folders and a pipe that the input makes, a write ends in the very
//! file that the system finds under the name, or changes nothing.
#![no_main]

use bespoke::output;
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What names are made of: of links and of what is written to.
const NAMES: [&str; 12] = ["a", "b", "c", "sub/a", "sub/b", "../a", "sub/../a", ".", "sub", "pipe", "absent/a", "b/"];

/// What stands under a name.
#[derive(Clone, PartialEq, Debug)]
enum Found {
    Link(PathBuf),
    File(Vec<u8>, u32),
    Folder,
    Pipe,
}

fn survey(folder: &Path, all: &mut BTreeMap<PathBuf, Found>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let (path, metadata) = (entry.path(), entry.metadata().expect("metadata"));
        let found = if metadata.is_symlink() {
            Found::Link(fs::read_link(&path).expect("a link"))
        } else if metadata.is_dir() {
            survey(&path, all);
            Found::Folder
        } else if metadata.is_file() {
            Found::File(fs::read(&path).expect("a file"), metadata.permissions().mode())
        } else {
            Found::Pipe
        };
        all.insert(path, found);
    }
}

fuzz_target!(|input: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |byte: u8| folder.path().join(NAMES[usize::from(byte) % NAMES.len()]);
    fs::create_dir(folder.path().join("sub")).expect("a folder");
    let pipe = folder.path().join("pipe");
    let text = std::ffi::CString::new(pipe.as_os_str().as_encoded_bytes()).expect("a name");
    // SAFETY: `text` ends with NUL.
    assert_eq!(unsafe { libc::mkfifo(text.as_ptr(), 0o600) }, 0);
    // Someone who reads, so that nobody waits.
    let mut reader =
        fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&pipe).expect("a pipe");
    for operation in input.chunks_exact(3).take(12) {
        let [kind, first, second] = [operation[0], operation[1], operation[2]];
        let path = at(first);
        if !path.starts_with(folder.path()) || NAMES[usize::from(first) % NAMES.len()].starts_with("..") {
            continue;
        }
        let target = NAMES[usize::from(second) % NAMES.len()];
        match kind % 4 {
            // What cannot be made is not there.
            0 => drop(symlink(target, &path)),
            1 if !path.exists() && fs::symlink_metadata(&path).is_err() => {
                if fs::write(&path, [second]).is_ok() {
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o600 | u32::from(second & 0o77)))
                        .expect("a mode");
                }
            }
            _ => written(folder.path(), &path, &vec![second; usize::from(second) * 40], &mut reader),
        }
    }
});

fn written(folder: &Path, path: &Path, content: &[u8], reader: &mut fs::File) {
    // A link may lead out of the folder: not to be tried.
    let parent = path.parent().and_then(|parent| fs::canonicalize(parent).ok());
    let real = fs::canonicalize(path).ok().or_else(|| Some(parent?.join(path.file_name()?)));
    if real.is_some_and(|real| !real.starts_with(fs::canonicalize(folder).expect("a folder")))
        || leads_out(folder, path)
    {
        return;
    }
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    survey(folder, &mut before);
    let checked = output::check(path);
    let outcome = output::write_bytes(path, content);
    survey(folder, &mut after);
    assert_eq!(checked.is_ok(), outcome.is_ok(), "{path:?}: {checked:?} {outcome:?}");
    if outcome.is_err() {
        assert_eq!(before, after, "{path:?}");
        return;
    }
    let real = fs::canonicalize(path).expect("what was written");
    let mut said = Vec::new();
    match reader.read_to_end(&mut said) {
        Err(e) if e.kind() == ErrorKind::WouldBlock => {}
        other => drop(other.expect("a pipe")),
    }
    let key = folder.join(real.strip_prefix(fs::canonicalize(folder).expect("a folder")).expect("inside"));
    if before.get(&key) == Some(&Found::Pipe) {
        assert_eq!(said, content);
        assert_eq!(before, after);
        return;
    }
    assert!(said.is_empty());
    let mode = match before.insert(key.clone(), Found::File(content.to_vec(), 0)) {
        Some(Found::File(_, mode)) => mode,
        earlier => {
            assert_eq!(earlier, None, "{path:?}");
            fs::metadata(path).expect("metadata").permissions().mode()
        }
    };
    before.insert(key, Found::File(content.to_vec(), mode));
    assert_eq!(before, after, "{path:?}");
}

/// Whether some link on the way leads out of the folder: by `..` from its top.
fn leads_out(folder: &Path, path: &Path) -> bool {
    let mut path = path.to_owned();
    for _ in 0..50 {
        let Ok(target) = fs::read_link(&path) else {
            let parent = path.parent().and_then(|parent| fs::canonicalize(parent).ok());
            return parent.is_some_and(|parent| !parent.starts_with(fs::canonicalize(folder).unwrap_or_default()));
        };
        path = path.parent().unwrap_or(folder).join(target);
    }
    false
}
