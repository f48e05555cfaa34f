//! The pure cores never await, read no clock, draw no random numbers and know no driver.
//!
//! A core that is pure can be walked exhaustively by a test, and gives the same answer on every store. Its tests may do
//! anything. `cargo xtask chaos mutants` edits these files.

use proc_macro2::{TokenStream, TokenTree};

use super::circles;
use super::tree::{File, Tree};

/// The pure modules. A path without its ending stands for the module's file and for the files of its folder.
const CORES: [&str; 6] = [
    "idempotency/src/core",
    "idempotency/src/http/fingerprint",
    "saga/src/core",
    "saga/src/policy",
    "txn/src/lock/sql",
    "txn/src/policy",
];

/// Pure modules that read values of a driver: its errors and its statements.
const READERS: [&str; 5] = [
    "txn/src/backend/postgres/classify",
    "txn/src/backend/sqlite/classify",
    "txn/src/classify",
    "txn/src/sqlstate",
    "txn/src/tx/statement",
];

/// Words that a pure file does not need.
const IMPURE: [&str; 10] =
    ["async", "await", "Instant", "SystemTime", "tokio", "getrandom", "rand", "uuid", "Uuid", "thread"];

/// The drivers. A reader may name them.
const DRIVERS: [&str; 2] = ["redis", "sqlx"];

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let is_gone = |module: &&&str| !tree.rust().any(|file| is_of(module, &file.path));
    let gone = CORES.iter().chain(&READERS).filter(is_gone);
    let gone = gone.map(|module| format!("no file is of the pure module {module}; where is it now?"));
    gone.chain(files(tree).flat_map(impurities)).collect()
}

/// The files of the pure modules.
pub(crate) fn files(tree: &Tree) -> impl Iterator<Item = &File> {
    tree.rust().filter(|file| CORES.iter().chain(&READERS).any(|module| is_of(module, &file.path)))
}

fn is_of(module: &str, path: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

fn impurities(file: &File) -> Vec<String> {
    let tokens: TokenStream = match file.text.parse() {
        Ok(tokens) => tokens,
        Err(error) => return vec![format!("{}: {error}", file.path)],
    };
    let is_reader = READERS.iter().any(|module| is_of(module, &file.path));
    let mut found = Vec::new();
    walk(&circles::without_tests(tokens), &mut |word, line| {
        if IMPURE.contains(&word) || !is_reader && DRIVERS.contains(&word) {
            found.push(format!("{}:{line}: a pure core does not need `{word}`", file.path));
        }
    });
    found
}

/// Visits each word with the number of its line.
pub(super) fn walk(tokens: &[TokenTree], visit: &mut impl FnMut(&str, usize)) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => walk(&group.stream().into_iter().collect::<Vec<_>>(), visit),
            TokenTree::Ident(word) => visit(&word.to_string(), word.span().start().line),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The findings about files, without those about modules that are gone.
    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let found = check(&Tree::of(files)).into_iter();
        found.filter(|finding| !finding.starts_with("no file")).collect()
    }

    #[test]
    fn a_core_that_reads_a_clock_or_waits_is_found() {
        let text =
            "//! Never awaits.\nuse std::time::{Duration, Instant};\nfn a(now: u64) {}\nasync fn b() {}\n";
        let files = [
            ("saga/src/core/state/back.rs", text),
            ("saga/src/engine.rs", text),
            ("saga/src/cores.rs", text),
            ("txn/src/policy.rs", "fn a() {}\n#[cfg(test)]\nmod tests {\n    async fn t() {}\n}\n"),
        ];
        assert_eq!(
            found(&files),
            [
                "saga/src/core/state/back.rs:2: a pure core does not need `Instant`",
                "saga/src/core/state/back.rs:4: a pure core does not need `async`"
            ]
        );
    }

    #[test]
    fn a_core_knows_no_driver_and_a_reader_only_its_values() {
        let text = "use sqlx::Error;\nfn a() { rand::random() }\n";
        assert_eq!(found(&[("saga/src/policy/tries.rs", text)]).len(), 2);
        assert_eq!(
            found(&[("txn/src/classify.rs", text)]),
            ["txn/src/classify.rs:2: a pure core does not need `rand`"]
        );
    }

    #[test]
    fn a_module_that_is_gone_is_found() {
        assert_eq!(check(&Tree::of(&[])).len(), CORES.len() + READERS.len());
        let found = check(&Tree::of(&[("saga/src/core/state.rs", ""), ("saga/src/policy.rs", "")]));
        assert_eq!(found.len(), CORES.len() + READERS.len() - 2, "{found:?}");
    }
}
