//! The account a server runs as.
//!
//! PostgreSQL refuses to run as root, and containers run everything as root. So, as root, its server runs as the
//! account `postgres` if the machine has one, and as `nobody` otherwise; as anybody else it simply runs.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::{fs, io};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// Whom to become before running PostgreSQL; `None` if we may stay who we are.
    pub(crate) fn for_postgres() -> Option<Account> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let account = ["postgres", "nobody"].into_iter().find_map(Account::named);
        assert!(
            account.is_some(),
            "PostgreSQL refuses to run as root, and this machine has neither the account `postgres` nor `nobody`; \
             make one: useradd --system postgres"
        );
        account
    }

    fn named(name: &str) -> Option<Account> {
        let ask = |flag: &str| {
            let answer = Command::new("id").args([flag, name]).output().ok()?;
            String::from_utf8(answer.stdout).ok()?.trim().parse().ok()
        };
        Some(Account { uid: ask("-u")?, gid: ask("-g")? })
    }

    /// Makes `command` run as this account, without the groups of root.
    pub(crate) fn runs(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Gives `path` to this account.
    pub(crate) fn owns(self, path: &Path) -> io::Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))?;
        fs::metadata(path).map(drop)
    }
}
