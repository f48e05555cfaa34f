//! Circles in a graph of imports.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::modules::Import;

/// Files that all reach each other.
#[derive(Debug)]
pub(super) struct Circle {
    pub(super) files: BTreeSet<String>,
    /// The imports without which there is no circle, each alone.
    pub(super) cuts: Vec<Import>,
    /// Shortest ways around, so that each file lies on one of them.
    pub(super) ways: Vec<Vec<Import>>,
}

/// The circles of a graph: its strongly connected parts of two files or more.
pub(super) fn circles(imports: &[Import]) -> Vec<Circle> {
    let graph = Graph::of(imports);
    let mut circles: Vec<Circle> = Vec::new();
    for file in graph.0.keys() {
        if circles.iter().any(|circle| circle.files.contains(*file)) {
            continue;
        }
        let reached = graph.reached_from(file);
        let back = |other: &&&str| graph.reached_from(other).contains(*file);
        let files: BTreeSet<String> = reached.iter().filter(back).map(|other| (*other).to_owned()).collect();
        if files.len() > 1 {
            circles.push(Circle { cuts: cuts(imports, &files), ways: graph.ways(&files), files });
        }
    }
    circles
}

fn cuts(imports: &[Import], files: &BTreeSet<String>) -> Vec<Import> {
    let is_inside = |import: &&Import| files.contains(&import.from) && files.contains(&import.to);
    let inside: Vec<&Import> = imports.iter().filter(is_inside).collect();
    let is_cut = |cut: &&&Import| {
        let rest: Vec<Import> =
            inside.iter().filter(|import| import != cut).map(|import| (*import).clone()).collect();
        let graph = Graph::of(&rest);
        !files.iter().any(|file| graph.reached_from(file).contains(file.as_str()))
    };
    inside.iter().filter(is_cut).map(|cut| (*cut).clone()).collect()
}

struct Graph<'a>(BTreeMap<&'a str, Vec<&'a Import>>);

impl<'a> Graph<'a> {
    fn of(imports: &'a [Import]) -> Graph<'a> {
        let mut graph: BTreeMap<&str, Vec<&Import>> = BTreeMap::new();
        for import in imports {
            graph.entry(&import.from).or_default().push(import);
        }
        Graph(graph)
    }

    fn imports_of(&self, file: &str) -> impl Iterator<Item = &'a Import> {
        self.0.get(file).into_iter().flatten().copied()
    }

    fn reached_from<'f>(&'f self, file: &'f str) -> BTreeSet<&'f str> {
        let mut reached = BTreeSet::new();
        let mut open = vec![file];
        while let Some(file) = open.pop() {
            open.extend(
                self.imports_of(file).map(|import| import.to.as_str()).filter(|to| reached.insert(*to)),
            );
        }
        reached
    }

    /// A shortest way around for each file that does not lie on an earlier one.
    fn ways(&self, files: &BTreeSet<String>) -> Vec<Vec<Import>> {
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut ways = Vec::new();
        for file in files {
            if !seen.contains(file.as_str()) {
                let way = self.way_around(file);
                seen.extend(way.iter().map(|import| import.from.as_str()));
                ways.push(way.into_iter().cloned().collect());
            }
        }
        ways
    }

    /// A shortest way from a file back to itself; empty if there is none.
    fn way_around(&self, start: &str) -> Vec<&'a Import> {
        let mut came_by: BTreeMap<&str, &Import> = BTreeMap::new();
        let mut open = VecDeque::from([start]);
        while let Some(file) = open.pop_front() {
            for import in self.imports_of(file) {
                if import.to == start {
                    let mut way = vec![import];
                    while let Some(before) = way.last().and_then(|last| came_by.get(last.from.as_str())) {
                        way.push(before);
                    }
                    way.reverse();
                    return way;
                }
                if !came_by.contains_key(import.to.as_str()) {
                    came_by.insert(&import.to, import);
                    open.push_back(&import.to);
                }
            }
        }
        Vec::new()
    }
}
