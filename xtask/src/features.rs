//! `cargo xtask features`: the published crates with any two of their features.
//!
//! Each feature alone is a part of `cargo xtask test`. Two features can break each other where `cfg`s meet, which neither
//! shows alone; three that break each other only together have not been seen. The pairs take many minutes, because each
//! set of features builds the drivers anew, so they run weekly and by hand.

use crate::step::{Progress, Step};
use crate::workspace;

/// Runs it.
pub(crate) fn run() -> Result<(), String> {
    let workspace = workspace::metadata()?;
    let steps = pairs(&workspace::published_features(&workspace)).into_iter().map(|(published, pair)| {
        let words = format!("check --locked --lib --features {pair}");
        Step::cargo("two features", &words).packages(&[published]).env("RUSTFLAGS", "-D warnings")
    });
    Progress::start().each(&steps.collect::<Vec<_>>())
}

/// Each published crate with every two of its features.
fn pairs<'a>(features: &[(&'a str, &'a str)]) -> Vec<(&'a str, String)> {
    let with_the_later = |(at, (published, one)): (usize, &(&'a str, &'a str))| {
        let later = features[at + 1..].iter().filter(|(other, _)| other == published);
        later.map(|(_, other)| (*published, format!("{one},{other}"))).collect::<Vec<_>>()
    };
    features.iter().enumerate().flat_map(with_the_later).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_two_features_of_one_crate_are_a_pair_once() {
        let features = [("one", "a"), ("one", "b"), ("one", "c"), ("two", "a"), ("two", "b")];
        let expected = [("one", "a,b"), ("one", "a,c"), ("one", "b,c"), ("two", "a,b")];
        assert_eq!(pairs(&features), expected.map(|(published, pair)| (published, pair.to_owned())));
    }
}
