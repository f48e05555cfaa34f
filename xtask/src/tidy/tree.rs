//! The text of the tree, as the rules see it.

use std::path::Path;
use std::{fs, io};

/// A file that people write and read.
#[derive(Debug, Clone)]
pub(crate) struct File {
    /// From the workspace's root, parted by `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    /// Tells whether the name ends with `.` and one of these.
    pub(crate) fn is(&self, kinds: &[&str]) -> bool {
        self.path.rsplit_once('.').is_some_and(|(_, kind)| kinds.contains(&kind))
    }

    /// The folder it lies in; empty for the root.
    pub(crate) fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }
}

/// Every text file of the workspace, sorted by path.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: Vec<File>,
}

impl Tree {
    /// Reads the workspace. Folders that cargo marked as caches (`target`) are not part of it, whatever their name.
    pub(crate) fn read(root: &Path) -> io::Result<Tree> {
        let mut files = Vec::new();
        read_folder(root, "", &mut files)?;
        files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(Tree { files })
    }

    /// A tree made up by a test.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Tree {
        let file = |&(path, text): &(&str, &str)| File { path: path.to_owned(), text: text.to_owned() };
        Tree { files: files.iter().map(file).collect() }
    }

    pub(crate) fn files(&self) -> &[File] {
        &self.files
    }

    pub(crate) fn get(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    pub(crate) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is(&["rs"]))
    }

    pub(crate) fn markdown(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is(&["md"]))
    }
}

/// The path `to` as written in a file of `folder`, from the root: `docs` and `../README.md` give `README.md`.
/// `None` if it leaves the tree.
pub(crate) fn resolve(folder: &str, to: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in to.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

fn read_folder(root: &Path, folder: &str, files: &mut Vec<File>) -> io::Result<()> {
    const HIDDEN_BUT_OURS: [&str; 3] = [".cargo", ".ci", ".github"];
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        let kind = entry.file_type()?;
        if kind.is_dir() {
            let hidden = name.starts_with('.') && !HIDDEN_BUT_OURS.contains(&name.as_str());
            if !hidden && !entry.path().join("CACHEDIR.TAG").exists() {
                read_folder(root, &path, files)?;
            }
        } else if kind.is_file()
            && name != ".git" // a file in a second worktree
            && let Ok(text) = String::from_utf8(fs::read(entry.path())?)
        {
            files.push(File { path, text });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_has_our_hidden_folders_and_no_build_output() {
        let root = testkit::temp_dir();
        for folder in [".ci", ".git", "out", "txn/src"] {
            fs::create_dir_all(root.path().join(folder)).expect("a folder");
        }
        for file in
            [".ci/run", ".git/config", "out/CACHEDIR.TAG", "out/lib.rs", "txn/src/lib.rs", "README.md"]
        {
            fs::write(root.path().join(file), "text").expect("a file");
        }
        fs::write(root.path().join("logo.png"), [0x89, b'P', 0xff]).expect("a file");
        let tree = Tree::read(root.path()).expect("a tree");
        let paths: Vec<&str> = tree.files().iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, [".ci/run", "README.md", "txn/src/lib.rs"]);
    }

    #[test]
    fn paths_are_resolved_as_written_in_a_file() {
        assert_eq!(resolve("docs/src", "../../README.md").as_deref(), Some("README.md"));
        assert_eq!(resolve("", "./docs/a.md").as_deref(), Some("docs/a.md"));
        assert_eq!(resolve("docs", "../../outside.md"), None);
    }
}
