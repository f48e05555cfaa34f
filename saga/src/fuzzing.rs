//! The fuzz targets of this crate. They are compiled by `cargo fuzz` (`cfg(fuzzing)`) and by the unit tests, which replay
//! the corpora in `corpus/`; no build of a user has this module.

use uuid::Uuid;

use crate::codec::{Codec, CodecError, Place, Sealer};
use crate::record::{Document, SagaId};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use crate::store::fuzzing::saga_row;

/// Seals by turning the text around.
struct Reversed;

impl Codec for Reversed {
    fn key_id(&self) -> &'static str {
        "k1"
    }
    fn seal(&self, place: &Place<'_>, json: &str) -> Result<String, CodecError> {
        Ok(format!("{place}|{json}").chars().rev().collect())
    }
    fn open(&self, key_id: &str, place: &Place<'_>, sealed: &str) -> Result<String, CodecError> {
        let text: String = sealed.chars().rev().collect();
        let json = text.strip_prefix(&format!("{place}|")).filter(|_| key_id == self.key_id());
        json.map(str::to_owned).ok_or_else(|| CodecError::new("not sealed here"))
    }
}

/// Reads `data` as two stored documents with a line break between them: opens them, and compares them.
///
/// # Panics
/// If a rule is broken: that is what the fuzzer looks for.
pub fn stored_document(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let place = Place { saga_type: "payment", saga: SagaId::from(Uuid::nil()), output_of: Some("Pay") };
    let sealer = Sealer(Some(std::sync::Arc::new(Reversed)));
    let stored = Document::from_stored(text.to_owned());
    for opens in [&sealer, &Sealer::default()] {
        if let Ok(plain) = opens.open_plain(&place, &stored) {
            let sealed =
                sealer.seal_plain(&place, plain.clone()).map(|sealed| sealer.open_plain(&place, &sealed));
            assert!(sealed.is_err() || sealed == Ok(Ok(plain)), "{text:?}");
        }
    }
    let (one, other) = text.split_once('\n').unwrap_or((text, ""));
    let [one, other] = [one, other].map(|text| Document::from_stored(text.to_owned()));
    assert!(one.means_the_same_as(&one) && other.means_the_same_as(&other), "{text:?}");
    assert_eq!(one.means_the_same_as(&other), other.means_the_same_as(&one), "{text:?}");
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::record::Document;

    /// The folder of a corpus, and the body that reads it.
    type Target = (&'static str, fn(&[u8]));

    #[test]
    fn deeply_nested_inputs_are_compared_without_deep_recursion() {
        let nested = |open: &str| Document::from_stored(open.repeat(200_000) + &"]".repeat(200_000));
        assert!(nested("[").means_the_same_as(&nested("[")));
        assert!(!nested("[").means_the_same_as(&nested("[ ")));
    }

    #[test]
    fn the_corpora_are_read_without_a_fault() {
        let targets: &[Target] = &[
            ("stored_document", super::stored_document),
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            ("saga_row", super::saga_row),
        ];
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
