//! A link from one Markdown file to another leads somewhere.

use super::tree::{File, Tree, resolve};

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let dead = |file: &File, link: &str| {
        let path = resolve(file.folder(), link.split('#').next().unwrap_or(""));
        !path.is_some_and(|path| leads_somewhere(tree, &path))
    };
    let files = tree.markdown();
    files
        .flat_map(|file| {
            let links = links(&file.text).into_iter().filter(move |link| dead(file, link));
            links.map(move |link| format!("{}: nothing is at {link}", file.path))
        })
        .collect()
}

fn leads_somewhere(tree: &Tree, path: &str) -> bool {
    let folder = format!("{path}/");
    path.is_empty() || tree.files().iter().any(|file| file.path == path || file.path.starts_with(&folder))
}

/// The targets of links to files.
fn links(text: &str) -> Vec<&str> {
    targets(text).into_iter().filter(|target| is_file(target)).collect()
}

/// The targets of links, `[text](target)`, outside of code.
pub(super) fn targets(text: &str) -> Vec<&str> {
    let mut in_code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        // Between back ticks, at the odd places, stands code.
        for prose in line.split('`').step_by(2) {
            found.extend(prose.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()));
        }
    }
    found
}

fn is_file(target: &str) -> bool {
    // Paths with `::` are links of rustdoc, which checks them itself.
    !target.is_empty() && !target.starts_with('#') && !target.contains(':') && target.contains(['.', '/'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_nothing_is_found() {
        let text = "[a](../README.md#top) [b](gone.md) [c](https://example.org/x.md) `[d](e.md)` [f](#g) [h](decisions/) \
                    [i](crate::store)\n```text\n[j](k.md)\n```\n[l](../../outside.md)";
        let tree = Tree::of(&[("README.md", ""), ("docs/a.md", text), ("docs/decisions/README.md", "")]);
        assert_eq!(
            check(&tree),
            ["docs/a.md: nothing is at gone.md", "docs/a.md: nothing is at ../../outside.md"]
        );
    }
}
