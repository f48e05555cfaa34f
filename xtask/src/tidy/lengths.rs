//! Files stay small enough to be read at once.
//!
//! A line counts if it is neither blank nor a comment, up to the tests at the end of the file. Files that were too long
//! once are listed in `lengths.txt` with their length; the list is a ratchet: it may only shrink.

use std::collections::BTreeMap;

use super::tree::Tree;

const LIMIT: usize = 500;
const RATCHET: &str = "xtask/src/tidy/lengths.txt";

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let allowed = allowed(tree.get(RATCHET).map_or("", |file| &file.text));
    let mut findings = Vec::new();
    for file in tree.rust() {
        let length = length(&file.text);
        let path = &file.path;
        match allowed.get(path.as_str()) {
            None if length > LIMIT => {
                findings.push(format!("{path} has {length} lines; split it by idea, {LIMIT} are the limit"))
            }
            Some(&allowed) if length > allowed => {
                findings.push(format!("{path} grew from {allowed} to {length} lines; split it by idea"))
            }
            Some(_) if length <= LIMIT => {
                findings.push(format!("{path} is short enough now; take it off {RATCHET}"))
            }
            Some(&allowed) if length < allowed => {
                findings.push(format!("{path} shrank to {length} lines; write that in {RATCHET}"))
            }
            _ => {}
        }
    }
    findings.extend(
        allowed
            .keys()
            .filter(|path| tree.get(path).is_none())
            .map(|path| format!("{path} is gone; take it off {RATCHET}")),
    );
    findings
}

/// `path length`, one a line; lines that start with `#` explain.
fn allowed(ratchet: &str) -> BTreeMap<&str, usize> {
    let lines = ratchet.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(path, length)| Some((path, length.parse().ok()?)))
        .collect()
}

fn length(text: &str) -> usize {
    let before_tests = text.lines().take_while(|line| *line != "#[cfg(test)]");
    before_tests.map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(lines: usize) -> String {
        "    let _ = 1;\n".repeat(lines)
    }

    #[test]
    fn a_long_file_is_found() {
        let tree = Tree::of(&[("a.rs", &code(LIMIT)), ("b.rs", &code(LIMIT + 1))]);
        assert_eq!(check(&tree), ["b.rs has 501 lines; split it by idea, 500 are the limit"]);
    }

    #[test]
    fn docs_blank_lines_and_tests_at_the_end_do_not_count() {
        let text = format!(
            "//! Docs.\n\n/// More.\n{}// Why.\n#[cfg(test)]\nmod tests {{\n{}}}\n",
            code(3),
            code(900)
        );
        assert_eq!(length(&text), 3);
    }

    #[test]
    fn the_ratchet_only_shrinks() {
        let with =
            |ratchet: &str, lines: usize| check(&Tree::of(&[("a.rs", &code(lines)), (RATCHET, ratchet)]));
        assert_eq!(with("# why\na.rs 600\n", 600), [""; 0]);
        assert_eq!(with("a.rs 600\n", 601), ["a.rs grew from 600 to 601 lines; split it by idea"]);
        assert_eq!(with("a.rs 600\n", 599), [format!("a.rs shrank to 599 lines; write that in {RATCHET}")]);
        assert_eq!(with("a.rs 600\n", 400), [format!("a.rs is short enough now; take it off {RATCHET}")]);
        assert_eq!(with("gone.rs 600\n", 400), [format!("gone.rs is gone; take it off {RATCHET}")]);
    }
}
