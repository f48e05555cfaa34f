//! The folder of the databases: a temporary one that vanishes unless the story ended well, or one that was given.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::story::Failure;

/// A folder that can be written.
#[derive(Debug)]
pub(crate) enum Folder {
    /// Removed when dropped, also after a failure.
    Temporary(TempDir),
    /// Named by `--data`: never removed.
    Given(PathBuf),
}

impl Folder {
    /// Opens the given folder, or makes a temporary one.
    ///
    /// # Errors
    /// A sentence with the path, and with what to do when it cannot be written.
    pub(crate) fn open(given: Option<PathBuf>) -> Result<Self, Failure> {
        match given {
            None => temporary(),
            Some(path) => {
                std::fs::create_dir_all(&path).map_err(|error| unwritable(&path, &error))?;
                tempfile::tempfile_in(&path).map_err(|error| unwritable(&path, &error))?;
                let absolute = path.canonicalize().map_err(|error| unwritable(&path, &error))?;
                Ok(Folder::Given(absolute))
            }
        }
    }

    /// The same, for a story that counts from zero: a folder with databases in it is refused.
    pub(crate) fn open_empty(given: Option<PathBuf>) -> Result<Self, Failure> {
        let folder = Self::open(given)?;
        let used = std::fs::read_dir(folder.path())
            .map_err(|error| unwritable(folder.path(), &error))?
            .filter_map(Result::ok)
            .any(|entry| entry.path().extension().is_some_and(|extension| extension == "sqlite3"));
        if used {
            let path = folder.path().display();
            return Err(Failure::Setup(format!(
                "{path} already holds databases; name an empty folder with --data"
            )));
        }
        Ok(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Folder::Temporary(folder) => folder.path(),
            Folder::Given(path) => path,
        }
    }

    /// Takes a given folder away again if nothing was put into it.
    pub(crate) fn leave_if_empty(&self) {
        // A folder with something in it is not removed by this call, and stays.
        drop(std::fs::remove_dir(self.path()));
    }

    /// Leaves the folder in place and tells where it is.
    pub(crate) fn keep(self) -> PathBuf {
        match self {
            Folder::Temporary(folder) => folder.keep(),
            Folder::Given(path) => path,
        }
    }
}

fn temporary() -> Result<Folder, Failure> {
    let parent = std::env::temp_dir();
    tempfile::Builder::new()
        .prefix("probity-demo-")
        .tempdir()
        .map(Folder::Temporary)
        .map_err(|error| unwritable(&parent, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    let path = path.display();
    Failure::Setup(format!("cannot write to {path}: {error}; set TMPDIR, or name another folder with --data"))
}
