//! Every file that the map of the tree names is there.
//!
//! In `docs/ARCHITECTURE.md` a path in back ticks ends with a file's name or with `/`, and `path::name` says which item of
//! the file to look for. In a table whose head says "file under" a folder, paths begin there. A map with a road that is gone
//! is worse than none.

use super::tree::Tree;

const MAP: &str = "docs/ARCHITECTURE.md";

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let Some(map) = tree.get(MAP) else { return vec![format!("{MAP} is missing")] };
    let mut findings = Vec::new();
    let (mut is_code, mut folder) = (false, "");
    for (number, line) in map.text.lines().enumerate() {
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
        for place in line.split('`').skip(1).step_by(2).filter(|place| !is_code && is_place(place, folder)) {
            let (path, item) =
                place.split_once("::").map_or((place, None), |(path, item)| (path, Some(item)));
            let path = format!("{folder}{path}");
            let wrong = match (tree.get(&path), item) {
                (Some(file), Some(item)) if !file.text.contains(item) => {
                    Some(format!("{path} has no {item}"))
                }
                (None, _) if !is_folder(tree, &path) => Some(format!("{path} is not there")),
                _ => None,
            };
            findings.extend(wrong.map(|wrong| format!("{MAP}:{}: {wrong}", number + 1)));
        }
    }
    findings
}

/// Tells whether code in back ticks is a path of a file or, with `/` at its end, of a folder. A path from the root has two
/// parts or more. One with a star stands for several.
fn is_place(code: &str, folder: &str) -> bool {
    let path = code.split("::").next().unwrap_or_default();
    let is_path = !path.is_empty() && !path.contains(|c: char| c.is_whitespace() || "*,(<".contains(c));
    let ends = [".rs", ".md", ".sql", ".lua", ".txt", ".toml", ".csv"].iter().any(|end| path.ends_with(end));
    let is_deep = !folder.is_empty() || path.contains('/');
    is_path && is_deep && !path.starts_with('/') && (ends || path.ends_with('/'))
}

fn is_folder(tree: &Tree, path: &str) -> bool {
    path.ends_with('/') && tree.files().iter().any(|file| file.path.starts_with(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(map: &str) -> Vec<String> {
        check(&Tree::of(&[
            (MAP, map),
            ("txn/src/run/commit.rs", "fn resolve() {}"),
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
            ["docs/ARCHITECTURE.md:1: txn/src/run/commit.rs has no ask"]
        );
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
