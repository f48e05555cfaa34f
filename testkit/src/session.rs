//! The session: one folder and one watchdog for the life of this test process.
//!
//! Invariant: as long as the folder exists, a watchdog watches it. The folder holds everything that tests put on disk
//! (data of servers, temporary folders) and the leash, where processes register. It is made at the first use and never
//! dropped: only the watchdog removes it, because only the watchdog is sure to see the end of the process.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

#[derive(Debug)]
pub(crate) struct Session {
    root: PathBuf,
    /// Never written to: the kernel closes it when this process ends, and that is the message.
    _pipe: ChildStdin,
    _watchdog: Child,
}

impl Session {
    /// The session of this process.
    pub(crate) fn current() -> &'static Session {
        static SESSION: OnceLock<Session> = OnceLock::new();
        SESSION.get_or_init(|| match Session::open() {
            Ok(session) => session,
            Err(error) => panic!(
                "failed to open a folder for this test process in {}: {error}; is it full, or read-only?",
                std::env::temp_dir().display()
            ),
        })
    }

    fn open() -> io::Result<Session> {
        // `keep`: the watchdog removes it. Passable, not listable, for the account that a database server runs as.
        let root = tempfile::Builder::new().prefix("probity-test-").tempdir()?.keep();
        let root = fs::canonicalize(root)?;
        fs::set_permissions(&root, Permissions::from_mode(0o711))?;
        let leash = root.join("leash");
        fs::create_dir(&leash)?;
        fs::set_permissions(&leash, Permissions::from_mode(0o711))?;
        let mut watchdog = Command::new("/bin/sh")
            .args(["-c", include_str!("watchdog.sh"), "probity-watchdog"])
            .arg(&root)
            .process_group(0) // Ctrl-C at the terminal must not reach it
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let pipe = watchdog.stdin.take().ok_or_else(|| io::Error::other("the watchdog has no pipe"))?;
        Ok(Session { root, _pipe: pipe, _watchdog: watchdog })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Creates a folder on the leash, for this caller alone.
    pub(crate) fn new_leash(&self) -> io::Result<PathBuf> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let folder = self.root.join("leash").join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&folder)?;
        Ok(folder)
    }
}

/// An empty folder that vanishes when dropped, or at the latest when this test process ends, however it ends.
///
/// # Panics
///
/// If the folder for temporary files is full or read-only.
///
/// # Examples
///
/// ```
/// let folder = testkit::temp_dir();
/// std::fs::write(folder.path().join("gateway.db"), b"")?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "the folder is removed when this is dropped"]
pub fn temp_dir() -> TempDir {
    match tempfile::Builder::new().prefix("folder-").tempdir_in(Session::current().root()) {
        Ok(folder) => folder,
        Err(error) => panic!("failed to make a temporary folder: {error}"),
    }
}
