//! Every promise we claim is proven by a test, and no test proves what we do not promise.
//!
//! `docs/GUARANTEES.md` has a table row `| T-1 | what | kept |` or `| T-1 | what | not yet |` for every promise; a test
//! that proves one says so in a comment that starts with the word `proves` and a colon, followed by ids. The comment stands in
//! one paragraph with the attribute of the test, or with the contract that makes the tests. A promise of a crate is proven in
//! its folder. The README of each crate repeats its table in the same words.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::{File, Tree};

const GUARANTEES: &str = "docs/GUARANTEES.md";

/// The folders of the crates, by the letter of the ids of their promises.
const FOLDERS: [(char, &str); 3] = [('T', "txn/"), ('I', "idempotency/"), ('S', "saga/")];

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let Some(guarantees) = tree.get(GUARANTEES) else { return vec![format!("{GUARANTEES} is missing")] };
    let mut findings = Vec::new();
    let mut kept: BTreeMap<&str, bool> = BTreeMap::new();
    for (id, state) in rows(&guarantees.text) {
        if !matches!(state, "kept" | "not yet") {
            findings.push(format!("{GUARANTEES}: {id} is {state:?}; it must be `kept` or `not yet`"));
        }
        if kept.insert(id, state == "kept").is_some() {
            findings.push(format!("{GUARANTEES}: {id} stands there twice"));
        }
    }
    if kept.is_empty() {
        findings.push(format!("{GUARANTEES} promises nothing: no row `| T-1 | text | kept |`"));
    }
    let mut proven = BTreeSet::new();
    for file in tree.rust() {
        for (id, is_of_a_test) in proofs(file) {
            if !is_of_a_test {
                findings.push(format!("{}: no test stands beside `proves: {id}`", file.path));
            } else if !kept.contains_key(id) {
                findings
                    .push(format!("{}: a test proves {id}, which {GUARANTEES} does not promise", file.path));
            } else if FOLDERS
                .iter()
                .any(|(letter, folder)| id.starts_with(*letter) && file.path.starts_with(folder))
            {
                proven.insert(id);
            }
        }
    }
    let unproven = kept.iter().filter(|(id, kept)| **kept && !proven.contains(**id));
    findings.extend(
        unproven.map(|(id, _)| format!("{id} is kept, but no test of its crate says `proves: {id}`")),
    );
    findings.extend(tables(tree, &guarantees.text));
    for readme in tree.markdown().filter(|file| file.path.ends_with("README.md")) {
        let claims = claims(&readme.text).into_iter().filter(|id| kept.get(id) == Some(&false));
        findings.extend(claims.map(|id| format!("{} claims {id}, which is not kept yet", readme.path)));
    }
    findings
}

/// Compares the table in the README of each published crate with ours: the same ids, each with the same words.
fn tables(tree: &Tree, guarantees: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for (letter, folder) in FOLDERS {
        let path = format!("{folder}README.md");
        let Some(readme) = tree.get(&path) else { continue };
        let words =
            |text| -> BTreeMap<_, _> { promises(text).filter(|(id, _)| id.starts_with(letter)).collect() };
        let (ours, theirs) = (words(guarantees), words(&readme.text));
        for (id, promise) in &ours {
            match theirs.get(id) {
                None => findings.push(format!("{path} lacks {id}, which {GUARANTEES} promises")),
                Some(other) if other != promise => {
                    findings.push(format!("{path} says of {id} {other:?}, and {GUARANTEES} {promise:?}"));
                }
                Some(_) => {}
            }
        }
        let more = theirs.keys().filter(|id| !ours.contains_key(*id));
        findings.extend(more.map(|id| format!("{path} has {id}, which {GUARANTEES} does not promise")));
    }
    findings
}

/// `(id, promise)` of every row that starts with an id.
fn promises(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let mut cells = line.trim().strip_prefix('|')?.split('|').map(str::trim);
        let id = cells.next().filter(|cell| is_id(cell))?;
        Some((id, cells.next()?))
    })
}

/// `(id, state)` of every row that starts with an id.
fn rows(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let cells: Vec<&str> =
            line.trim().strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
        let id = cells.first().filter(|cell| is_id(cell))?;
        Some((*id, *cells.last()?))
    })
}

/// The ids that a text claims: those it names, except in a paragraph or a table row that says "not yet".
fn claims(text: &str) -> Vec<&str> {
    let paragraphs = text.split("\n\n");
    let units = paragraphs.flat_map(|paragraph| {
        let parts = if paragraph.starts_with('|') { usize::MAX } else { 1 };
        paragraph.splitn(parts, '\n')
    });
    units.filter(|unit| !unit.to_lowercase().contains("not yet")).flat_map(ids).collect()
}

/// The ids that comments say to be proven, each with whether a test stands in the same paragraph.
fn proofs(file: &File) -> impl Iterator<Item = (&str, bool)> {
    file.text.split("\n\n").flat_map(|paragraph| {
        let is_of_a_test = paragraph.lines().map(str::trim).any(makes_a_test);
        let comments = paragraph.lines().filter_map(|line| line.trim().strip_prefix("//"));
        comments
            .filter_map(|comment| comment.trim_start_matches('/').trim_start().strip_prefix("proves:"))
            .flat_map(ids)
            .map(move |id| (id, is_of_a_test))
    })
}

/// Tells whether this line is `#[test]`, `#[tokio::test(..)]` or a call like `store_contract!(..)`.
fn makes_a_test(line: &str) -> bool {
    let is_attribute = line.starts_with("#[") && ["test]", "test("].iter().any(|end| line.contains(end));
    is_attribute || line.contains("_contract!(")
}

/// Every id that a text names.
fn ids(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').filter(|word| is_id(word))
}

/// `T-1`, `I-10`, `S-3`
fn is_id(word: &str) -> bool {
    let number = word.strip_prefix(['T', 'I', 'S']).and_then(|rest| rest.strip_prefix('-'));
    number.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(guarantees: &str, test: &str, readme: &str) -> Vec<String> {
        check(&Tree::of(&[(GUARANTEES, guarantees), ("txn/tests/a.rs", test), ("README.md", readme)]))
    }

    const BOTH: &str =
        "| id | promise | state |\n|---|---|---|\n| T-1 | together | kept |\n| T-6 | token | not yet |\n";

    #[test]
    fn a_kept_promise_with_a_test_is_fine() {
        for test in [
            "    // proves: T-1\n    #[test]\n    fn a() {}\n",
            "#[tokio::test(start_paused = true)]\nasync fn a() {\n    // proves: T-1\n    b();\n\n    c();\n}\n",
            "mod a {\n    // proves: T-1\n    probity_txn::store_contract!(subject);\n}\n",
        ] {
            assert_eq!(findings(BOTH, test, "Keeps T-1."), [""; 0], "{test}");
        }
    }

    #[test]
    fn a_comment_without_its_test_proves_nothing() {
        for text in [
            "// proves: T-1\nfn helper() {}\n",
            "// proves: T-1\n\n#[test]\nfn a() {}\n",
            "// proves: T-1\n#[cfg(test)]\nmod tests {}\n",
        ] {
            assert_eq!(
                findings(BOTH, text, ""),
                [
                    "txn/tests/a.rs: no test stands beside `proves: T-1`",
                    "T-1 is kept, but no test of its crate says `proves: T-1`"
                ]
            );
        }
    }

    #[test]
    fn a_promise_is_proven_in_its_own_crate() {
        let found =
            |path| check(&Tree::of(&[(GUARANTEES, BOTH), (path, "// proves: T-1\n#[test]\nfn a() {}\n")]));
        assert_eq!(found("txn/src/a.rs"), [""; 0]);
        assert_eq!(
            found("examples/a/tests/a.rs"),
            ["T-1 is kept, but no test of its crate says `proves: T-1`"]
        );
    }

    #[test]
    fn a_kept_promise_without_a_test_is_found() {
        let found = findings(BOTH, "// T-1 in passing\n#[test]\nfn a() {}\n", "");
        assert_eq!(found, ["T-1 is kept, but no test of its crate says `proves: T-1`"]);
    }

    #[test]
    fn a_test_that_proves_no_promise_is_found() {
        let found = findings(BOTH, "// proves: T-1, T-99\n#[test]\n", "");
        assert_eq!(found, ["txn/tests/a.rs: a test proves T-99, which docs/GUARANTEES.md does not promise"]);
    }

    #[test]
    fn a_readme_must_not_claim_what_is_not_kept_yet() {
        let found = findings(BOTH, "/// proves: T-1\n#[test]\n", "A lost reply is no problem (T-6).");
        assert_eq!(found, ["README.md claims T-6, which is not kept yet"]);
    }

    #[test]
    fn a_readme_may_say_what_is_not_kept_yet() {
        assert_eq!(claims("| T-1 | a | yes |\n| T-6 | b | not yet |\n"), ["T-1"]);
        assert_eq!(claims("It keeps T-1.\n\nNot yet:\nT-6 and\nT-7.\n"), ["T-1"]);
    }

    #[test]
    fn the_readme_of_a_crate_promises_the_same_in_the_same_words() {
        let found = |readme: &str| tables(&Tree::of(&[("txn/README.md", readme)]), BOTH);
        assert_eq!(found("| T-1 | together |\n| T-6 | token |\n"), [""; 0]);
        assert_eq!(
            found("| T-1 | together |\n"),
            ["txn/README.md lacks T-6, which docs/GUARANTEES.md promises"]
        );
        assert_eq!(
            found("| T-1 | apart |\n| T-6 | token |\n"),
            ["txn/README.md says of T-1 \"apart\", and docs/GUARANTEES.md \"together\""]
        );
        assert_eq!(found("| T-1 | together |\n| T-6 | token |\n| T-9 | more |\n").len(), 1);
    }

    #[test]
    fn rows_say_kept_or_not_yet_once_for_each_id() {
        let found = findings("| T-1 | a | soon |\n| T-1 | b | kept |\n", "// proves: T-1\n#[test]\n", "");
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(findings("no table", "", "").len(), 1);
        assert_eq!(check(&Tree::default()), ["docs/GUARANTEES.md is missing"]);
    }
}
