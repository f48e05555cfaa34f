//! Every file that the map of the tree or a decision record names is there.
//!
//! In `docs/ARCHITECTURE.md` a path in back ticks ends with a file's name or with `/`, and `path::name` says which item of
//! the file to look for. In a table whose head says "file under" a folder, paths begin there. A decision record may leave out
//! the beginning of a path. A map with a road that is gone is worse than none.

use super::circles;
use super::pure;
use super::tree::{File, Tree};

const MAP: &str = "docs/ARCHITECTURE.md";
const RECORDS: &str = "docs/decisions/";

/// The words before the name of an item.
const KEYWORDS: [&str; 9] =
    ["const", "enum", "fn", "macro_rules", "mod", "static", "struct", "trait", "type"];

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let missing = tree.get(MAP).is_none().then(|| format!("{MAP} is missing"));
    let pages = tree.markdown().filter(|page| page.path == MAP || page.path.starts_with(RECORDS));
    missing.into_iter().chain(pages.flat_map(|page| gone(tree, page))).collect()
}

/// The places of a page that are not there.
fn gone(tree: &Tree, page: &File) -> Vec<String> {
    let mut findings = Vec::new();
    let (mut is_code, mut folder, is_open) = (false, "", page.path != MAP);
    for (number, line) in page.text.lines().enumerate() {
        if line.starts_with("```") {
            is_code = !is_code;
        }
        if !line.starts_with('|') {
            folder = "";
        } else if let Some((_, head)) = line.split_once("file under `") {
            folder = head.split('`').next().unwrap_or_default();
            continue;
        }
        // Between back ticks, at the odd places, stands code.
        let code = line.split('`').skip(1).step_by(2);
        // In a record, a single word before a slash is something else.
        let is_one_word = |place: &&str| is_open && !place.trim_end_matches('/').contains('/');
        for place in code.filter(|place| !is_code && is_place(place, folder) && !is_one_word(place)) {
            let (path, item) =
                place.split_once("::").map_or((place, None), |(path, item)| (path, Some(item)));
            let path = format!("{folder}{path}");
            let files: Vec<&File> =
                tree.files().iter().filter(|file| is_at(&file.path, &path, is_open)).collect();
            let wrong = match item {
                _ if files.is_empty() => format!("{path} is not there"),
                Some(item) if !files.iter().any(|file| defines(file, item)) => {
                    format!("{path} defines no {item}")
                }
                _ => continue,
            };
            findings.push(format!("{}:{}: {wrong}", page.path, number + 1));
        }
    }
    findings
}

/// Tells whether a file has this path, or lies in this folder. An open path may begin anywhere.
fn is_at(file: &str, path: &str, is_open: bool) -> bool {
    let rest = match is_open {
        true => format!("/{file}").split_once(&format!("/{path}")).map(|(_, rest)| rest.to_owned()),
        false => file.strip_prefix(path).map(str::to_owned),
    };
    rest.is_some_and(|rest| rest.is_empty() || path.ends_with('/'))
}

/// Tells whether a Rust file defines an item of this name, or a heading or comment of another file has it as a word.
fn defines(file: &File, item: &str) -> bool {
    if !file.is(&["rs"]) {
        let mut heads = file.text.lines().filter(|line| line.starts_with("--") || line.starts_with('#'));
        return heads
            .any(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == item));
    }
    let mut before = String::new();
    let mut is_defined = false;
    pure::walk(&circles::without_tests(file.text.parse().unwrap_or_default()), &mut |word, _| {
        is_defined |= word == item && KEYWORDS.contains(&before.as_str());
        word.clone_into(&mut before);
    });
    is_defined
}

/// Tells whether code in back ticks is a path of a file or, with `/` at its end, of a folder. A path of a file from the root
/// has two parts or more. One with a star stands for several.
fn is_place(code: &str, folder: &str) -> bool {
    let path = code.split("::").next().unwrap_or_default();
    let is_path = !path.is_empty() && !path.contains(|c: char| c.is_whitespace() || "*,(<".contains(c));
    let ends = [".rs", ".md", ".sql", ".lua", ".txt", ".toml", ".csv"].iter().any(|end| path.ends_with(end));
    let is_deep = !folder.is_empty() || path.contains('/');
    is_path && is_deep && !path.starts_with('/') && (ends || path.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(map: &str) -> Vec<String> {
        check(&Tree::of(&[
            (MAP, map),
            ("txn/src/run/commit.rs", "fn resolve(keys: u8) { claim(); }\n// the key\nconst ROWS: u8 = 1;"),
            ("txn/src/rows.sql", "-- claim: takes it\nSELECT taken;"),
            ("xtask/src/main.rs", ""),
        ]))
    }

    #[test]
    fn a_place_that_is_gone_is_found() {
        assert_eq!(
            found("`txn/src/run/commit.rs`, `txn/src/run/`, `txn/src/run/commit.rs::resolve`"),
            [""; 0]
        );
        assert_eq!(
            found("a\n`txn/src/commit.rs`"),
            ["docs/ARCHITECTURE.md:2: txn/src/commit.rs is not there"]
        );
        assert_eq!(found("`saga/src/`"), ["docs/ARCHITECTURE.md:1: saga/src/ is not there"]);
        assert_eq!(
            found("`txn/src/run/commit.rs::ask`"),
            ["docs/ARCHITECTURE.md:1: txn/src/run/commit.rs defines no ask"]
        );
    }

    #[test]
    fn an_item_is_defined_where_the_map_says() {
        assert_eq!(found("`txn/src/run/commit.rs::ROWS`, `txn/src/rows.sql::claim`"), [""; 0]);
        for word in ["key", "keys", "claim", "reso"] {
            let place = format!("`txn/src/run/commit.rs::{word}`");
            assert_eq!(found(&place).len(), 1, "{word}");
        }
        assert_eq!(found("`txn/src/rows.sql::taken`").len(), 1);
    }

    #[test]
    fn a_record_may_leave_out_the_beginning_of_a_path() {
        let found = |record: &str| {
            let files = [(MAP, ""), ("docs/decisions/0001-a.md", record), ("txn/tests/http/wait.rs", "")];
            check(&Tree::of(&files))
        };
        assert_eq!(found("`http/wait.rs`, `tests/http/`, `txn/tests/http/wait.rs`, `v2/`, `a://`"), [""; 0]);
        assert_eq!(found("`tests/wait.rs`"), ["docs/decisions/0001-a.md:1: tests/wait.rs is not there"]);
        assert_eq!(found("`ttp/wait.rs`, `tests/http/wait.r/`").len(), 2);
    }

    #[test]
    fn a_table_may_begin_in_a_folder() {
        let head = "| question | file under `txn/src/` |\n|---|---|\n";
        assert_eq!(found(&format!("{head}| a | `run/commit.rs`, `run/<any>/` |\n")), [""; 0]);
        assert_eq!(
            found(&format!("{head}| a | `commit.rs` |\n\n`run/commit.rs`\n")),
            [
                "docs/ARCHITECTURE.md:3: txn/src/commit.rs is not there",
                "docs/ARCHITECTURE.md:5: run/commit.rs is not there"
            ]
        );
    }

    #[test]
    fn other_code_is_no_place() {
        let map = "`main.rs`, `examples/*-service`, `/api/v1/payments.rs`, `cargo xtask tidy a/b.rs`\n```sh\n`a/b.rs`\n```\n";
        assert_eq!(found(map), [""; 0]);
    }
}
