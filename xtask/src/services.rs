//! The servers the tests need, and how to get them on this machine.
//!
//! Installing is done only where it needs no question: apt as root or with a sudo that does not ask, or Homebrew. On
//! any other machine the command says what to install, and fails.

use std::path::Path;
use std::process::{Command, Stdio};

use testkit::Missing;

use crate::{say, workspace};

/// Installs what is missing; nothing if nothing is.
pub(crate) fn install() -> Result<(), String> {
    let missing = missing();
    if missing.is_empty() {
        say::line("redis-server, PostgreSQL, PgBouncer and Prometheus are installed.");
        return Ok(());
    }
    let Some(commands) = commands(&missing, Machine::look()) else {
        return Err(by_hand(&missing));
    };
    for words in &commands {
        say::line(&format!("    {}", words.join(" ")));
        run(words)?;
    }
    let still_missing = self::missing();
    if still_missing.is_empty() { Ok(()) } else { Err(by_hand(&still_missing)) }
}

fn missing() -> Vec<Missing> {
    let missing = [
        testkit::redis_server().err(),
        testkit::postgres_tools().err(),
        testkit::pgbouncer().err(),
        testkit::prometheus().err(),
    ];
    missing.into_iter().flatten().collect()
}

/// The package manager of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Machine {
    Apt { as_root: bool },
    Homebrew,
    Other,
}

impl Machine {
    fn look() -> Machine {
        let answers =
            |program: &str, arguments: &[&str]| workspace::succeeds(Command::new(program).args(arguments));
        if Path::new("/etc/debian_version").exists() && answers("apt-get", &["--version"]) {
            let as_root =
                Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout.trim_ascii() == b"0");
            if as_root || answers("sudo", &["-n", "true"]) {
                return Machine::Apt { as_root };
            }
        } else if answers("brew", &["--version"]) {
            return Machine::Homebrew;
        }
        Machine::Other
    }
}

/// The command that installs `missing`; `None` if only a person can install it.
fn commands(missing: &[Missing], machine: Machine) -> Option<Vec<Vec<&'static str>>> {
    let as_root = match machine {
        Machine::Apt { as_root } => as_root,
        Machine::Homebrew => {
            let formulas = missing.iter().map(Missing::homebrew_formula);
            return Some(vec![["brew", "install"].into_iter().chain(formulas).collect()]);
        }
        Machine::Other => return None,
    };
    let sudo = if as_root { [].as_slice() } else { &["sudo", "-n"] };
    let apt = |words: &[&'static str]| -> Vec<&'static str> {
        let quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"];
        sudo.iter().copied().chain(quiet).chain(words.iter().copied()).collect()
    };
    let packages = missing.iter().map(Missing::debian_package);
    let install: Vec<_> = ["install", "-y", "--no-install-recommends"].into_iter().chain(packages).collect();
    Some(vec![apt(&["update"]), apt(&install)])
}

fn run(words: &[&str]) -> Result<(), String> {
    let [program, arguments @ ..] = words else { return Ok(()) };
    match Command::new(program).args(arguments).stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{} failed ({status}); its output above says why", words.join(" "))),
        Err(error) => Err(format!("failed to run {program}: {error}")),
    }
}

fn by_hand(missing: &[Missing]) -> String {
    let list = missing.iter().map(|missing| {
        let (debian, homebrew) = (missing.debian_package(), missing.homebrew_formula());
        format!(
            "\n  {}   (Debian and Ubuntu: apt-get install {debian}; macOS: brew install {homebrew})",
            missing.what()
        )
    });
    format!(
        "the tests need servers that this command cannot install here; please install them, then repeat:{}\n\
         Servers that run already will do, too: set PROBITY_TEST_REDIS_URL and PROBITY_TEST_DATABASE_URL \
         (the tools of PostgreSQL are needed in any case, and some tests start servers to break them).",
        list.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Missing> {
        [Missing::redis(), Missing::postgres(), Missing::pgbouncer(), Missing::prometheus()].into()
    }

    fn typed(machine: Machine) -> Option<Vec<String>> {
        Some(commands(&all(), machine)?.iter().map(|words| words.join(" ")).collect())
    }

    #[test]
    fn apt_never_asks_a_question() {
        let install = "env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends redis-server postgresql pgbouncer prometheus";
        let as_root = typed(Machine::Apt { as_root: true }).expect("apt can");
        assert_eq!(as_root, ["env DEBIAN_FRONTEND=noninteractive apt-get -qq update", install]);
        let with_sudo = typed(Machine::Apt { as_root: false }).expect("apt can");
        assert_eq!(with_sudo[1], format!("sudo -n {install}"));
    }

    #[test]
    fn homebrew_installs_all_at_once() {
        assert_eq!(
            typed(Machine::Homebrew).expect("brew can"),
            ["brew install redis postgresql@17 pgbouncer prometheus"]
        );
    }

    #[test]
    fn any_other_machine_is_told_what_to_install() {
        assert_eq!(typed(Machine::Other), None);
        let message = by_hand(&all());
        assert!(message.contains("redis-server") && message.contains("PostgreSQL"), "{message}");
    }
}
