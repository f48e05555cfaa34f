//! The kinds of problems in the sources of the services are the ones that `problems.md` describes.

use std::collections::BTreeSet;
use std::path::Path;

/// The folder of the services.
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

#[test]
fn every_kind_of_problem_is_described_and_every_described_kind_exists() {
    let mut used = BTreeSet::new();
    for service in std::fs::read_dir(EXAMPLES).unwrap() {
        let sources = service.unwrap().path().join("src");
        if sources.is_dir() {
            collect(&sources, &mut used);
        }
    }
    let page = std::fs::read_to_string(format!("{EXAMPLES}/problems.md")).unwrap();
    let described = page.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_owned).collect();
    assert_eq!(used, described);
    let file = service_shell::PROBLEM_TYPES.strip_suffix('#').unwrap().rsplit_once("/main/").unwrap().1;
    assert!(Path::new(EXAMPLES).join("..").join(file).exists(), "{file}");
}

/// Adds the kinds of all problems that are made in the files of a folder.
fn collect(folder: &Path, kinds: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, kinds);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            let calls = ["Problem::new(", "Problem::conflict("];
            let calls = calls.into_iter().flat_map(|call| source.split(call).skip(1));
            kinds.extend(calls.filter_map(first_word));
        }
    }
}

/// The first text among the arguments of a call, if nothing but paths and names stands before it.
fn first_word(arguments: &str) -> Option<String> {
    let (before, rest) = arguments.split_once('"')?;
    let is_plain = before.chars().all(|c| c.is_alphanumeric() || c.is_whitespace() || "_:,".contains(c));
    is_plain.then(|| rest.split('"').next().unwrap_or_default().to_owned())
}
