//! The pure cores never await, read no clock, draw no random numbers and know no driver.
//!
//! A core that is pure can be walked exhaustively by a test, and gives the same answer on every store. Its tests may do
//! anything.

use proc_macro2::{TokenStream, TokenTree};

use super::circles;
use super::tree::{File, Tree};

/// The pure files: a path of a file, or of a folder with `/` at its end.
const PURE: [&str; 9] = [
    "idempotency/src/core/",
    "saga/src/core/",
    "saga/src/machine.rs",
    "saga/src/machine/",
    "saga/src/policy.rs",
    "txn/src/backend/postgres/classify.rs",
    "txn/src/backend/sqlite/classify.rs",
    "txn/src/lock/sql.rs",
    "txn/src/policy.rs",
];

/// Words that a pure file does not need.
const IMPURE: [&str; 8] =
    ["async", "await", "Instant", "SystemTime", "tokio", "getrandom", "redis", "thread"];

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let is_pure = |file: &&File| {
        PURE.iter().any(|path| file.path == *path || path.ends_with('/') && file.path.starts_with(path))
    };
    tree.rust().filter(is_pure).flat_map(impurities).collect()
}

fn impurities(file: &File) -> Vec<String> {
    let tokens: TokenStream = match file.text.parse() {
        Ok(tokens) => tokens,
        Err(error) => return vec![format!("{}: {error}", file.path)],
    };
    let mut found = Vec::new();
    walk(&circles::without_tests(tokens), &mut |word, line| {
        if IMPURE.contains(&word) {
            found.push(format!("{}:{line}: a pure core does not need `{word}`", file.path));
        }
    });
    found
}

/// Visits each word with the number of its line.
fn walk(tokens: &[TokenTree], visit: &mut impl FnMut(&str, usize)) {
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

    #[test]
    fn a_core_that_reads_a_clock_or_waits_is_found() {
        let text =
            "//! Never awaits.\nuse std::time::{Duration, Instant};\nfn a(now: u64) {}\nasync fn b() {}\n";
        let tree = Tree::of(&[
            ("saga/src/machine/state.rs", text),
            ("saga/src/engine.rs", text),
            ("txn/src/policy.rs", "fn a() {}\n#[cfg(test)]\nmod tests {\n    async fn t() {}\n}\n"),
        ]);
        assert_eq!(
            check(&tree),
            [
                "saga/src/machine/state.rs:2: a pure core does not need `Instant`",
                "saga/src/machine/state.rs:4: a pure core does not need `async`"
            ]
        );
    }
}
