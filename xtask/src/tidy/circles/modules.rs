//! The modules of a crate, and the paths by which one file of it names another.
//!
//! Files are read as tokens, so comments, documentation and strings do not count, and paths inside of macros do. Items
//! under `#[cfg(test)]` are left out: a test may name anything.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, Group, Span, TokenStream, TokenTree};

use crate::tidy::tree::Tree;

/// A path in one file that leads to another file of the same crate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Import {
    pub(super) from: String,
    pub(super) line: usize,
    pub(super) path: String,
    pub(super) to: String,
}

/// The modules from the crate's root down to one of them.
type Module = Vec<String>;

/// The imports of a crate whose root file is `root`, the first of each pair of files, sorted.
pub(super) fn imports(tree: &Tree, root: &str) -> Result<Vec<Import>, String> {
    let mut crate_ = Crate::default();
    crate_.read(tree, Module::new(), root)?;
    let mut imports: Vec<Import> = Vec::new();
    for (module, tokens) in &crate_.bodies {
        let mut names = Names { crate_: &crate_, aliases: BTreeMap::new(), found: Vec::new() };
        names.uses(module, tokens);
        names.paths(module, tokens);
        imports.extend(names.found);
    }
    imports.sort_by(|one, other| (&one.from, &one.to, one.line).cmp(&(&other.from, &other.to, other.line)));
    imports.dedup_by(|one, other| (&one.from, &one.to) == (&other.from, &other.to));
    Ok(imports)
}

#[derive(Debug, Default)]
struct Crate {
    /// The file of each module; an inline module lies in the file of its parent.
    files: BTreeMap<Module, String>,
    /// The tokens of each module, without those of inline modules and of tests.
    bodies: Vec<(Module, Vec<TokenTree>)>,
}

impl Crate {
    /// Reads the file of `module` and the files of the modules that it declares.
    fn read(&mut self, tree: &Tree, module: Module, path: &str) -> Result<(), String> {
        let file = tree.get(path).ok_or_else(|| format!("{path} is missing"))?;
        let tokens: TokenStream = file.text.parse().map_err(|error| format!("{path}: {error}"))?;
        self.add(tree, module, path, without_tests(tokens))
    }

    fn add(&mut self, tree: &Tree, module: Module, path: &str, tokens: Vec<TokenTree>) -> Result<(), String> {
        self.files.insert(module.clone(), path.to_owned());
        let mut rest = Vec::new();
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            let name = match tokens.peek() {
                Some(TokenTree::Ident(name)) if is_word(&token, "mod") => name.to_string(),
                _ => {
                    rest.push(token);
                    continue;
                }
            };
            let child: Module = module.iter().cloned().chain([name]).collect();
            tokens.next();
            match tokens.next() {
                Some(TokenTree::Group(body)) => {
                    self.add(tree, child, path, body.stream().into_iter().collect())?
                }
                _ => self.read(tree, child.clone(), &file_of(tree, path, &child)?)?,
            }
        }
        self.bodies.push((module, rest));
        Ok(())
    }

    /// The deepest module that a path leads through, if it starts at `crate`, `self`, `super` or a name known here.
    fn resolve(
        &self,
        here: &Module,
        aliases: &BTreeMap<String, Module>,
        path: &[String],
    ) -> Option<(Module, usize)> {
        let is_child = |name: &String| self.files.contains_key(&child_of(here, name));
        let (mut at, mut used) = match path.first()?.as_str() {
            "crate" => (Module::new(), 1),
            "self" => (here.clone(), 1),
            "super" => (here.clone(), 0),
            _ if is_child(&path[0]) => (here.clone(), 0),
            name => (aliases.get(name)?.clone(), 1),
        };
        while path.get(used).is_some_and(|part| part == "super") {
            at.pop()?;
            used += 1;
        }
        while let Some(child) = path.get(used).map(|part| child_of(&at, part))
            && self.files.contains_key(&child)
        {
            at = child;
            used += 1;
        }
        Some((at, used))
    }
}

fn child_of(module: &Module, name: &str) -> Module {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

/// The file of a module that the file `parent` declares with `mod name;`.
fn file_of(tree: &Tree, parent: &str, module: &Module) -> Result<String, String> {
    let (folder, file) = parent.rsplit_once('/').unwrap_or(("", parent));
    let name = module.last().map(String::as_str).unwrap_or_default();
    let folder = match file {
        "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
        file => format!("{folder}/{}", file.trim_end_matches(".rs")),
    };
    [format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")]
        .into_iter()
        .find(|path| tree.get(path).is_some())
        .ok_or_else(|| format!("{parent} declares the module {name}, which has no file"))
}

/// The names that one module uses.
struct Names<'a> {
    crate_: &'a Crate,
    /// Modules that a `use` of this module gave a name.
    aliases: BTreeMap<String, Module>,
    found: Vec<Import>,
}

impl Names<'_> {
    /// Finds the `use` declarations, also those inside of functions.
    fn uses(&mut self, here: &Module, tokens: &[TokenTree]) {
        for (at, token) in tokens.iter().enumerate() {
            if is_word(token, "use") {
                let end = tokens[at..].iter().position(|token| is_sign(token, ';'));
                let tree = &tokens[at + 1..end.map_or(tokens.len(), |end| at + end)];
                self.use_tree(here, &[], tree);
            } else if let TokenTree::Group(group) = token {
                self.uses(here, &group.stream().into_iter().collect::<Vec<_>>());
            }
        }
    }

    /// `a::b`, `a::b as c`, `a::*` and `a::{b, c::d}`, after the path `before`.
    fn use_tree(&mut self, here: &Module, before: &[String], tokens: &[TokenTree]) {
        for tree in tokens.split(|token| is_sign(token, ',')) {
            let mut path = before.to_vec();
            let mut alias = None;
            let mut span = None;
            let mut renamed = false;
            for token in tree {
                match token {
                    TokenTree::Ident(word) if word == "as" => renamed = true,
                    TokenTree::Ident(name) if renamed => alias = Some(name.to_string()),
                    TokenTree::Ident(name) if name == "self" && !path.is_empty() => span = Some(name.span()),
                    TokenTree::Ident(name) => {
                        path.push(name.to_string());
                        span = Some(name.span());
                    }
                    TokenTree::Punct(star) if star.as_char() == '*' => span = Some(star.span()),
                    TokenTree::Group(group) => {
                        self.use_tree(here, &path, &group.stream().into_iter().collect::<Vec<_>>());
                        span = None;
                    }
                    _ => {}
                }
            }
            let Some(span) = span else { continue };
            if let Some((module, used)) = self.name(here, &path, span)
                && used == path.len()
                && let Some(name) = alias.or_else(|| path.last().cloned())
            {
                self.aliases.insert(name, module);
            }
        }
    }

    /// Finds the paths outside of `use` declarations.
    fn paths(&mut self, here: &Module, tokens: &[TokenTree]) {
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            match token {
                TokenTree::Group(group) => self.paths(here, &group.stream().into_iter().collect::<Vec<_>>()),
                TokenTree::Ident(word) if word == "use" => {
                    at += tokens[at..].iter().position(|token| is_sign(token, ';')).unwrap_or(0);
                }
                TokenTree::Ident(first) => {
                    let path = path_at(&tokens[at..]);
                    let is_relative =
                        at < 2 || !is_sign(&tokens[at - 1], ':') || !is_sign(&tokens[at - 2], ':');
                    if path.len() > 1 && is_relative {
                        self.name(here, &path, first.span());
                        at += 3 * (path.len() - 1);
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Notes that `here` names `path`, if that leads to a module of this crate, and says which and by how many parts.
    /// A child that names its parent is not noted: see the rule.
    fn name(&mut self, here: &Module, path: &[String], span: Span) -> Option<(Module, usize)> {
        let (module, used) = self.crate_.resolve(here, &self.aliases, path)?;
        let from = self.crate_.files.get(here)?.clone();
        let to = self.crate_.files.get(&module)?.clone();
        let is_parent = here.split_last().is_some_and(|(_, parent)| !parent.is_empty() && module == parent);
        if from != to && !is_parent {
            self.found.push(Import { from, line: span.start().line, path: path.join("::"), to });
        }
        Some((module, used))
    }
}

/// The names of a path like `a::b::c` that starts here.
fn path_at(tokens: &[TokenTree]) -> Vec<String> {
    let mut path = Vec::new();
    let mut rest = tokens;
    while let [TokenTree::Ident(name), after @ ..] = rest {
        path.push(name.to_string());
        match after {
            [one, two, next @ ..] if is_sign(one, ':') && is_sign(two, ':') => rest = next,
            _ => break,
        }
    }
    path
}

/// The tokens without the items, fields and statements under `#[cfg(test)]`.
pub(crate) fn without_tests(tokens: TokenStream) -> Vec<TokenTree> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut kept = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        if is_sign(token, '#') && tokens.get(at + 1).is_some_and(is_cfg_test) {
            at += 2 + item_length(&tokens[at + 2..]);
            continue;
        }
        kept.push(match token {
            TokenTree::Group(group) => {
                let inner: TokenStream = without_tests(group.stream()).into_iter().collect();
                TokenTree::Group(Group::new(group.delimiter(), inner))
            }
            other => other.clone(),
        });
        at += 1;
    }
    kept
}

/// `[cfg(test)]`, or `[cfg(all(test, ..))]`.
fn is_cfg_test(attribute: &TokenTree) -> bool {
    let TokenTree::Group(attribute) = attribute else { return false };
    let mut tokens = attribute.stream().into_iter();
    let (Some(name), Some(TokenTree::Group(conditions))) = (tokens.next(), tokens.next()) else {
        return false;
    };
    let conditions: Vec<TokenTree> = conditions.stream().into_iter().collect();
    is_word(&name, "cfg")
        && match conditions.as_slice() {
            [one] => is_word(one, "test"),
            [all, TokenTree::Group(each)] if is_word(all, "all") => {
                each.stream().into_iter().any(|condition| is_word(&condition, "test"))
            }
            _ => false,
        }
}

/// Counts the tokens of the item that starts here.
fn item_length(tokens: &[TokenTree]) -> usize {
    let with_body: BTreeSet<&str> =
        ["fn", "mod", "impl", "struct", "enum", "trait", "union", "macro_rules"].into();
    let mut has_body = false;
    let mut is_other = false;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Ident(word) => {
                has_body |= !is_other && with_body.contains(word.to_string().as_str());
                is_other |= !has_body && ["use", "let", "static", "type"].iter().any(|other| word == other);
            }
            TokenTree::Group(group) if has_body && group.delimiter() == Delimiter::Brace => return at + 1,
            TokenTree::Punct(sign) if sign.as_char() == ';' => return at + 1,
            TokenTree::Punct(sign) if sign.as_char() == ',' && !has_body && !is_other => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == word)
}

fn is_sign(token: &TokenTree, sign: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The imports of `a/src/one.rs` if it has this text, as `line path -> file`.
    fn named(text: &str) -> Vec<String> {
        let tree = Tree::of(&[
            ("a/src/lib.rs", "mod one; pub mod two; pub use two::Two;"),
            ("a/src/one.rs", text),
            ("a/src/one/part.rs", "use super::One;"),
            ("a/src/two.rs", "pub struct Two; pub mod deep; mod hidden { use super::Two; }"),
            ("a/src/two/deep.rs", "pub struct Deep;"),
        ]);
        let imports = imports(&tree, "a/src/lib.rs").expect("a crate");
        let ours = imports.iter().filter(|import| import.from == "a/src/one.rs");
        ours.map(|import| format!("{} {} -> {}", import.line, import.path, &import.to["a/src/".len()..]))
            .collect()
    }

    #[test]
    fn uses_lead_to_the_file_of_the_deepest_module() {
        assert_eq!(named("use crate::two::Two;"), ["1 crate::two::Two -> two.rs"]);
        assert_eq!(named("use crate::Two;"), ["1 crate::Two -> lib.rs"]);
        assert_eq!(named("mod x { use super::super::two::*; }"), ["1 super::super::two -> two.rs"]);
        assert_eq!(named("use std::fmt;\nuse two::Two;"), [""; 0]);
        assert_eq!(
            named("pub(crate) use crate::{\n    two::{self as second, deep::Deep},\n    Two,\n};"),
            ["3 crate::Two -> lib.rs", "2 crate::two -> two.rs", "2 crate::two::deep::Deep -> two/deep.rs"]
        );
    }

    #[test]
    fn paths_in_code_and_in_macros_count() {
        assert_eq!(named("fn f() { loud!(a, crate::two::Two) }"), ["1 crate::two::Two -> two.rs"]);
        assert_eq!(named("struct S(super::two::deep::Deep);"), ["1 super::two::deep::Deep -> two/deep.rs"]);
        assert_eq!(
            named("use crate::two; fn f() -> two::deep::Deep {}"),
            ["1 crate::two -> two.rs", "1 two::deep::Deep -> two/deep.rs"]
        );
        assert_eq!(named("mod part; fn f() { part::go() }"), ["1 part::go -> one/part.rs"]);
        assert_eq!(named("pub(crate) fn f() { ::two::deep(); self.two(); two() }"), [""; 0]);
    }

    #[test]
    fn tests_comments_and_documentation_do_not_count() {
        assert_eq!(named("//! [`crate::Two`]\n// crate::Two\n/// [`crate::two::Two`]\nstruct S;"), [""; 0]);
        assert_eq!(named("#[cfg(test)]\nmod tests { use crate::Two; }"), [""; 0]);
        assert_eq!(
            named("#[cfg(test)] use crate::{Two}; use crate::two::Two;"),
            ["1 crate::two::Two -> two.rs"]
        );
        assert_eq!(named("#[cfg(all(test, unix))]\nfn f() -> crate::Two { Two }"), [""; 0]);
        assert_eq!(
            named("#[cfg(any(test, feature = \"testing\"))]\nuse crate::Two;"),
            ["2 crate::Two -> lib.rs"]
        );
    }

    #[test]
    fn a_module_without_a_file_is_said() {
        let tree = Tree::of(&[("a/src/lib.rs", "mod gone;")]);
        let error = imports(&tree, "a/src/lib.rs").expect_err("no file");
        assert_eq!(error, "a/src/lib.rs declares the module gone, which has no file");
    }
}
