//! The fuzz targets of this crate. They are compiled by `cargo fuzz` (`cfg(fuzzing)`) and by the unit tests, which replay
//! the corpora in `corpus/`; no build of a user has this module.

pub use crate::tx::statement::fuzzing::sql_scanner;

#[cfg(test)]
mod tests {
    use std::fs;

    /// The folder of a corpus, and the body that reads it.
    type Target = (&'static str, fn(&[u8]));

    #[test]
    fn the_corpora_are_read_without_a_fault() {
        let targets: [Target; 1] = [("sql_scanner", super::sql_scanner)];
        for (target, run) in targets {
            let folder = format!("{}/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
            let inputs: Vec<_> = fs::read_dir(&folder).expect("it has a corpus").collect();
            assert!(!inputs.is_empty(), "{folder} is empty");
            for input in inputs {
                run(&fs::read(input.expect("is listed").path()).expect("can be read"));
            }
        }
    }
}
