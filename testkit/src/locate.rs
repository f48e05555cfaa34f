//! The places of the servers' programs, and the remedy where one is missing.

use std::fmt;
use std::path::{Path, PathBuf};

/// A server that is not installed. Its message is the command that changes this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    what: &'static str,
    debian: &'static str,
    homebrew: &'static str,
}

impl Missing {
    /// PostgreSQL, as if it were missing.
    #[must_use]
    pub fn postgres() -> Missing {
        Missing {
            what: "PostgreSQL (postgres, initdb, psql)",
            debian: "postgresql",
            homebrew: "postgresql@17",
        }
    }

    /// Redis, as if it were missing.
    #[must_use]
    pub fn redis() -> Missing {
        Missing { what: "Redis (redis-server)", debian: "redis-server", homebrew: "redis" }
    }

    /// PgBouncer, as if it were missing.
    #[must_use]
    pub fn pgbouncer() -> Missing {
        Missing { what: "PgBouncer (pgbouncer)", debian: "pgbouncer", homebrew: "pgbouncer" }
    }

    /// Prometheus, as if it were missing.
    #[must_use]
    pub fn prometheus() -> Missing {
        Missing { what: "Prometheus (prometheus, promtool)", debian: "prometheus", homebrew: "prometheus" }
    }

    /// The name of the missing program, in words.
    #[must_use]
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// The package of Debian and Ubuntu that has it.
    #[must_use]
    pub fn debian_package(&self) -> &'static str {
        self.debian
    }

    /// The formula of Homebrew that has it.
    #[must_use]
    pub fn homebrew_formula(&self) -> &'static str {
        self.homebrew
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is not installed. Install it: cargo xtask services install   (or: apt-get install {}, or: brew install {})",
            self.what, self.debian, self.homebrew
        )
    }
}

impl std::error::Error for Missing {}

/// The folder that holds `postgres`, `initdb` and `psql` of one version: the one on the `PATH`, else the newest of
/// the places where packages put it (Debian keeps it off the `PATH`).
///
/// # Errors
///
/// [`Missing`] if no folder holds all three.
pub fn postgres_tools() -> Result<PathBuf, Missing> {
    const PLACES: [(&str, &str, &str); 6] = [
        ("/usr/lib/postgresql", "", "bin"),
        ("/opt/homebrew/opt", "postgresql", "bin"),
        ("/usr/local/opt", "postgresql", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/usr/local", "pgsql", "bin"),
    ];
    let complete =
        |folder: &PathBuf| ["postgres", "initdb", "psql"].iter().all(|tool| is_program(&folder.join(tool)));
    let packaged = PLACES.iter().flat_map(|(parent, prefix, bin)| versions(Path::new(parent), prefix, bin));
    path_folders().chain(packaged).find(complete).ok_or_else(Missing::postgres)
}

/// The program `redis-server`.
///
/// # Errors
///
/// [`Missing`] if it is neither on the `PATH` nor where packages put it.
pub fn redis_server() -> Result<PathBuf, Missing> {
    packaged("redis-server").ok_or_else(Missing::redis)
}

/// The program `pgbouncer`.
///
/// # Errors
///
/// [`Missing`] if it is neither on the `PATH` nor where packages put it.
pub fn pgbouncer() -> Result<PathBuf, Missing> {
    packaged("pgbouncer").ok_or_else(Missing::pgbouncer)
}

/// The programs `prometheus` and `promtool`.
///
/// # Errors
///
/// [`Missing`] if one of them is neither on the `PATH` nor where packages put it.
pub fn prometheus() -> Result<[PathBuf; 2], Missing> {
    let both = packaged("prometheus").zip(packaged("promtool"));
    both.map(|(server, tool)| [server, tool]).ok_or_else(Missing::prometheus)
}

/// A program on the `PATH`, or where packages put programs. Debian keeps servers in `sbin`, off the `PATH` of users.
fn packaged(program: &str) -> Option<PathBuf> {
    const PLACES: [&str; 5] =
        ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/opt/homebrew/bin", "/opt/homebrew/sbin"];
    let usual = PLACES.into_iter().map(PathBuf::from);
    path_folders().chain(usual).map(|folder| folder.join(program)).find(|file| is_program(file))
}

fn path_folders() -> impl Iterator<Item = PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect::<Vec<_>>().into_iter()
}

fn is_program(file: &Path) -> bool {
    file.is_file()
}

/// `parent/<prefix><version>/bin` for every version there is, newest first.
fn versions(parent: &Path, prefix: &str, bin: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let mut found: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?.trim_start_matches('@');
            Some((major(version), entry.path().join(bin)))
        })
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, folder)| folder).collect()
}

/// The major version that a folder's name starts with; 0 if it names none.
fn major(version: &str) -> u32 {
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_comes_first_by_number_not_by_letter() {
        let parent = crate::session::temp_dir();
        for version in ["9", "15", "14"] {
            std::fs::create_dir(parent.path().join(version)).expect("an empty folder");
        }
        let folders = versions(parent.path(), "", "bin");
        let expected: Vec<PathBuf> =
            ["15/bin", "14/bin", "9/bin"].iter().map(|end| parent.path().join(end)).collect();
        assert_eq!(folders, expected);
    }

    #[test]
    fn a_missing_server_names_the_command_that_installs_it() {
        let message = Missing::redis().to_string();
        assert!(message.contains("cargo xtask services install"), "{message}");
        assert!(message.contains("brew install redis"), "{message}");
    }
}
