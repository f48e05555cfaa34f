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
            // `Problem::conflict` itself passes on the kind of its caller.
            let source = std::fs::read_to_string(&path).unwrap();
            let source = source.replace("Problem::new(StatusCode::CONFLICT, kind, detail)", "");
            for kind in kinds_in(&source) {
                kinds.insert(
                    kind.unwrap_or_else(|call| panic!("{}: name the kind in {call}", path.display())),
                );
            }
        }
    }
}

/// The kinds of the problems that a source makes outside of comments; the call, if it names none.
fn kinds_in(source: &str) -> Vec<Result<String, String>> {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: String = code.flat_map(|line| [line, "\n"]).collect();
    let calls = ["Problem::new(", "Problem::conflict("];
    let calls = calls.into_iter().flat_map(|call| code.split(call).skip(1).map(move |rest| (call, rest)));
    let kind = |(call, rest)| {
        let head: String = str::chars(rest).take(80).collect();
        first_word(rest).ok_or_else(|| format!("{call}{}", head.trim_end()))
    };
    calls.map(kind).collect()
}

#[test]
fn a_problem_whose_kind_cannot_be_read_is_found() {
    let kind = |source: &str| kinds_in(source).pop();
    let new = Some(Ok("new".to_owned()));
    assert_eq!(kind("Problem::new(\n    StatusCode::CONFLICT,\n    // why\n    \"new\", text)"), new);
    assert_eq!(kind("Problem::conflict(\"new\", text)"), new);
    assert_eq!(kind("/// Problem::conflict(\"old\", text)"), None);
    for call in [
        "StatusCode::from_u16(409).unwrap(), \"new\", text)",
        "status, KIND, text(\"new\"))",
        "status, KIND, text)",
    ] {
        assert_eq!(kind(&format!("Problem::new({call}")), Some(Err(format!("Problem::new({call}"))));
    }
}

/// The first text among the arguments of a call, if nothing but paths and names stands before it.
fn first_word(arguments: &str) -> Option<String> {
    let (before, rest) = arguments.split_once('"')?;
    let is_plain = before.chars().all(|c| c.is_alphanumeric() || c.is_whitespace() || "_:,".contains(c));
    is_plain.then(|| rest.split('"').next().unwrap_or_default().to_owned())
}
