//! A README is read on a forge and on the registry's page, where rustdoc does not help.
//!
//! - Code has no hidden lines: what rustdoc hides behind `#` is shown there.
//! - Code begins within the first 25 lines.
//! - Versions in `toml` code are those of the workspace.
//! - A name in back ticks occurs in the sources of the crate: rustdoc cannot follow it, so a renamed item is found here.
//! - A README of a published crate has no link relative to its folder or to an item of Rust. Absolute links into this
//!   repository and to the guides are followed in the tree.

use std::collections::BTreeSet;

use super::fences;
use super::links;
use super::tree::{File, Tree};
use crate::workspace::{PUBLISHED, folder};

const FIRST_CODE: usize = 25;
const REPOSITORY: &str = "https://github.com/probity-rs/probity/blob/main/";

/// The paths of the pages that a stranger meets first, and whether a registry shows them.
fn readmes() -> impl Iterator<Item = (String, bool)> {
    let published = PUBLISHED.iter().map(|name| (format!("{}/README.md", folder(name)), true));
    published.chain([("README.md".to_owned(), false), ("docs/TOGETHER.md".to_owned(), false)])
}

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for (path, is_published) in readmes() {
        let Some(file) = tree.get(&path) else {
            findings.push(format!("{path} is missing"));
            continue;
        };
        findings.extend(code(file));
        findings.extend(versions(tree, file));
        if is_published {
            findings.extend(targets(tree, file));
            findings.extend(names(tree, file));
        }
    }
    findings
}

/// Checks that code begins early and has no hidden lines.
fn code(file: &File) -> Vec<String> {
    let path = &file.path;
    let mut findings = Vec::new();
    let rust = |language: &str| language.split([',', ' ']).next() == Some("rust");
    let first = fences::fences(&file.text).into_iter().find(|(_, language)| rust(language));
    match first {
        None => findings.push(format!("{path} shows no code")),
        Some((line, _)) if line > FIRST_CODE => {
            findings.push(format!("{path}: code begins at line {line}, {FIRST_CODE} are the limit"));
        }
        Some(_) => {}
    }
    for (number, line) in lines_of(&file.text, "rust") {
        if line == "#" || line.starts_with("# ") {
            findings.push(format!("{path}:{number}: a forge shows this line: write a whole `main` instead"));
        }
    }
    findings
}

/// Checks the versions of dependencies against the manifest of the workspace.
fn versions(tree: &Tree, file: &File) -> Vec<String> {
    let manifest = tree.get("Cargo.toml").map_or("", |file| &file.text);
    let ours = |name: &str| manifest.lines().filter_map(dependency).find(|(other, _)| *other == name);
    let mut findings = Vec::new();
    for (number, line) in lines_of(&file.text, "toml") {
        let Some((name, version)) = dependency(line) else { continue };
        if let Some((_, ours)) = ours(name)
            && !format!("{ours}.").starts_with(&format!("{version}."))
        {
            findings.push(format!("{}:{number}: {name} {version} is not the workspace's {ours}", file.path));
        }
    }
    findings
}

/// Checks that each link resolves outside of this repository, too.
fn targets(tree: &Tree, file: &File) -> Vec<String> {
    let mut findings = Vec::new();
    for link in links::targets(&file.text) {
        let wrong = if let Some(path) = link.strip_prefix(REPOSITORY) {
            let path = path.split('#').next().unwrap_or_default();
            tree.get(path).is_none().then_some("nothing is there")
        } else if let Some(page) = link.strip_prefix("https://docs.rs/probity-") {
            (!is_chapter(tree, page)).then_some("the guide has no such chapter")
        } else if link.starts_with("https://") || link.starts_with('#') {
            None
        } else {
            Some("only an absolute link leads somewhere on the registry's page")
        };
        findings.extend(wrong.map(|wrong| format!("{}: {link}: {wrong}", file.path)));
    }
    findings
}

/// Checks that the last part of each name in back ticks, `Type::method`, is a word of the crate's sources.
fn names(tree: &Tree, file: &File) -> Vec<String> {
    let sources = format!("{}/src/", file.folder());
    let is_sign = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words: BTreeSet<&str> = tree
        .rust()
        .filter(|source| source.path.starts_with(&sources))
        .flat_map(|source| source.text.split(|c: char| !is_sign(c)))
        .collect();
    let mut findings = Vec::new();
    let mut is_code = false;
    for (number, line) in file.text.lines().enumerate() {
        if line.starts_with("```") {
            is_code = !is_code;
            continue;
        }
        // Between back ticks, at the odd places, stands code.
        for name in line.split('`').skip(1).step_by(2).filter(|_| !is_code) {
            let last = name.rsplit("::").next().unwrap_or_default();
            if name.chars().all(|c| is_sign(c) || c == ':') && !last.is_empty() && !words.contains(last) {
                findings.push(format!("{}:{}: {sources} knows no {name}", file.path, number + 1));
            }
        }
    }
    findings
}

/// Tells whether a page like `txn/latest/probity_txn/guide/start/` is a public module of the guide.
fn is_chapter(tree: &Tree, page: &str) -> bool {
    let parts: Vec<&str> = page.trim_end_matches('/').split('/').collect();
    let [name, "latest", module, "guide", chapter @ ..] = parts.as_slice() else { return false };
    let guide = tree.get(&format!("{name}/src/guide.rs")).map_or("", |file| &file.text);
    let chapters: BTreeSet<&str> =
        guide.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(" {}")).collect();
    *module == format!("probity_{name}")
        && match chapter {
            [] => !guide.is_empty(),
            [chapter] => chapters.contains(chapter),
            _ => false,
        }
}

/// The name and version of a line like `name = "1"` or `name = { version = "1", .. }`.
fn dependency(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.split_once(" = ")?;
    let version = match rest.strip_prefix('"') {
        Some(version) => version,
        None => rest.split_once("version = \"")?.1,
    };
    Some((name, version.split_once('"')?.0))
}

/// The numbered lines inside of fences of a language.
fn lines_of<'a>(text: &'a str, language: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let mut inside = false;
    text.lines().enumerate().filter_map(move |(number, line)| {
        if let Some(opening) = line.strip_prefix("```") {
            inside = !inside && opening.split([',', ' ']).next() == Some(language);
            return None;
        }
        inside.then_some((number + 1, line))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The findings about a README of a published crate.
    fn found(text: &str) -> Vec<String> {
        let good = "```rust\nfn main() {}\n```\n";
        let files = [
            ("Cargo.toml", "sqlx = { version = \"0.9\" }\nredis = { version = \"1.8\" }\ntokio = \"1.50\"\n"),
            ("README.md", good),
            ("docs/a.md", ""),
            ("docs/TOGETHER.md", good),
            ("txn/README.md", text),
            ("txn/src/guide.rs", "pub mod start {}\n"),
            ("idempotency/README.md", good),
            ("saga/README.md", good),
        ];
        check(&Tree::of(&files))
    }

    #[test]
    fn hidden_lines_and_late_code_are_found() {
        assert_eq!(found("```rust\n#[test]\nfn a() {}\n```\n```sh\n# not Rust\n```\n"), [""; 0]);
        assert_eq!(found("```rust\n# fn main() {\n#\n# }\n```\n").len(), 3);
        assert_eq!(found(&format!("{}```rust\n```\n", "\n".repeat(24))), [""; 0]);
        let late = found(&format!("{}```rust\n```\n", "\n".repeat(25)));
        assert_eq!(late, ["txn/README.md: code begins at line 26, 25 are the limit"]);
        assert_eq!(found("text"), ["txn/README.md shows no code"]);
    }

    #[test]
    fn a_name_that_is_gone_is_found() {
        let named = |name: &str| found(&format!("```rust\nlet a = gone();\n```\nCall `{name}`.\n"));
        assert_eq!(named("guide::start"), [""; 0]);
        assert_eq!(named("gone(&mut *tx)"), [""; 0]);
        assert_eq!(named("guide::gone"), ["txn/README.md:4: txn/src/ knows no guide::gone"]);
    }

    #[test]
    fn versions_are_those_of_the_workspace() {
        let toml = |line: &str| found(&format!("```toml\n{line}\n```\n```rust\n```\n"));
        assert_eq!(toml("sqlx = { version = \"0.9\", features = [] }"), [""; 0]);
        assert_eq!(toml("redis = \"1\"\ntokio = \"1\"\nserde = \"9\""), [""; 0]);
        assert_eq!(toml("sqlx = \"0.8\""), ["txn/README.md:2: sqlx 0.8 is not the workspace's 0.9"]);
        assert_eq!(toml("tokio = \"1.5\""), ["txn/README.md:2: tokio 1.5 is not the workspace's 1.50"]);
    }

    #[test]
    fn links_lead_somewhere_on_the_registrys_page() {
        let link = |target: &str| found(&format!("```rust\n```\n[a]({target})\n"));
        for good in [
            "https://example.org",
            "#promises",
            "https://github.com/probity-rs/probity/blob/main/docs/a.md#limits",
            "https://docs.rs/probity-txn/latest/probity_txn/guide/",
            "https://docs.rs/probity-txn/latest/probity_txn/guide/start/",
        ] {
            assert_eq!(link(good), [""; 0], "{good}");
        }
        for bad in [
            "../docs/a.md",
            "crate::Tx",
            "https://github.com/probity-rs/probity/blob/main/docs/b.md",
            "https://docs.rs/probity-txn/latest/probity_txn/guide/end/",
            "https://docs.rs/probity-txn/latest/probity_saga/guide/start/",
        ] {
            assert_eq!(link(bad).len(), 1, "{bad}");
        }
    }
}
