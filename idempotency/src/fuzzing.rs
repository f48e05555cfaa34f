//! The fuzz targets of this crate. They are compiled by `cargo fuzz` (`cfg(fuzzing)`) and by the unit tests, which replay
//! the corpora in `corpus/`; no build of a user has this module.

use bytes::Bytes;

use crate::core::key::IdempotencyKey;
use crate::core::recording::Recording;
#[cfg(feature = "tower")]
pub use crate::http::fuzzing::request;
#[cfg(feature = "redis")]
pub use crate::store::redis::fuzzing::redis_record;

/// Reads `data` as the value of an `Idempotency-Key` header, and checks what holds of every key that is accepted.
///
/// # Panics
/// If a rule is broken: that is what the fuzzer looks for.
pub fn key_header(data: &[u8]) {
    let Ok(key) = IdempotencyKey::from_header(data) else { return };
    let text = key.as_str();
    assert!(
        (1..=IdempotencyKey::LENGTH_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic())
    );
    assert_eq!(IdempotencyKey::new(text).as_ref(), Ok(&key));
    let quoted = format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    assert_eq!(IdempotencyKey::from_header(quoted.as_bytes()).as_ref(), Ok(&key), "{quoted}");
    assert_eq!(IdempotencyKey::from_header(&[b" \t", data, b" "].concat()), Ok(key));
}

/// Reads `data` as the stored headers of a recording. Accepted headers are written again unchanged: no header is lost.
///
/// # Panics
/// If a rule is broken: that is what the fuzzer looks for.
pub fn recording(data: &[u8]) {
    if let Ok(recording) = Recording::decode(200, data, Bytes::new()) {
        assert_eq!(recording.encode_headers(), data);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    /// The folder of a corpus, and the body that reads it.
    type Target = (&'static str, fn(&[u8]));

    #[test]
    fn the_corpora_are_read_without_a_fault() {
        let targets: &[Target] = &[
            ("key_header", super::key_header),
            ("recording", super::recording),
            #[cfg(feature = "redis")]
            ("redis_record", super::redis_record),
            #[cfg(feature = "tower")]
            ("request", super::request),
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
