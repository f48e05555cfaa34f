//! Files stay small enough to be read at once.
//!
//! A line counts if it is neither blank nor a comment, up to the tests at the end of the file.

use super::tree::Tree;

const LIMIT: usize = 500;

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let lengths = tree.rust().map(|file| (&file.path, length(&file.text)));
    let long = lengths.filter(|(_, length)| *length > LIMIT);
    long.map(|(path, length)| format!("{path} has {length} lines; split it by idea, {LIMIT} are the limit"))
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
}
