//! Names that are derived by hashing. A process that derives another name for the same key does not find the record, and
//! runs the payment again.

use probity_idempotency::store::RecordId;
use probity_idempotency::{Fingerprint, HashKey, IdempotencyKey, Recording, Scope};

use super::{hex, v1};

const SECRET: HashKey = HashKey::secret([7; 32]);

fn derived(hash: &HashKey, scope: &str, key: &str) -> RecordId {
    RecordId::derive(hash, &Scope::new(scope).unwrap(), &IdempotencyKey::new(key).unwrap())
}

// proves: I-8
#[test]
fn records_and_downstream_keys_have_the_names_that_are_stored() {
    let mut lines = String::from("# default or secret hash key, scope, key = record id\n");
    let long = "k".repeat(255);
    for (name, hash) in [("default", HashKey::default()), ("secret", SECRET)] {
        for (scope, key) in
            [("merchant:M-1", "k-1"), ("merchant:M-2", "k-1"), ("Händler", "\"quoted\\\""), ("m", &long)]
        {
            let id = derived(&hash, scope, key);
            lines += &format!("{name}, {scope}, {key} = {}\n", id.to_hex());
            assert_eq!(RecordId::from_bytes(*id.as_bytes()), id, "the stored form is read back");
        }
    }
    lines += "\n# record id, step = the key that the downstream system sees\n";
    let record = derived(&HashKey::default(), "merchant:M-1", "k-1");
    for step in ["channel", "ledger", ""] {
        lines += &format!("{}, {step} = {}\n", record.to_hex(), record.downstream_key(step));
    }
    testkit::golden(v1!("ids.txt"), &lines);
}

// proves: I-3
#[test]
fn fingerprints_are_those_that_are_stored() {
    let mut lines =
        String::from("# default or secret hash key, parts = fingerprint: one byte of version, 32 of hash\n");
    let long = "x".repeat(3000);
    for (name, hash) in [("default", HashKey::default()), ("secret", SECRET)] {
        for parts in [&[][..], &["POST", "/payments", "{}"], &["POST", "/payments{}", ""], &[&long]] {
            let bytes: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
            let print = Fingerprint::of(&hash, &bytes);
            let shown = parts.iter().map(|part| part.get(..20).unwrap_or(part)).collect::<Vec<_>>();
            lines += &format!("{name}, {shown:?} = {}\n", hex(print.as_bytes()));
            assert_eq!(Fingerprint::from_bytes(*print.as_bytes()), print, "the stored form is read back");
        }
    }
    testkit::golden(v1!("fingerprints.txt"), &lines);
}

// proves: I-2
#[test]
fn the_headers_of_a_recording_are_encoded_as_they_are_stored() {
    let recordings = [
        Recording::payload("a job has no headers"),
        Recording::new(201).header("content-type", "application/json").header("location", "/payments/1"),
        Recording::new(200).header("link", "<a>").header("link", "<b>").header("x-raw", &b"\xff\0"[..]),
    ];
    let line =
        |recording: &Recording| format!("{} = {}\n", recording.status(), hex(&recording.encode_headers()));
    let written: String = recordings.iter().map(line).collect();
    let title = "# status = headers: one byte of version; for each name and value 8 bytes of length, then its bytes\n";
    let stored = testkit::golden(v1!("headers.txt"), &format!("{title}{written}"));
    for (line, recording) in stored.lines().skip(1).zip(recordings) {
        let (status, headers) = line.split_once(" = ").unwrap();
        let headers: Vec<u8> = (0..headers.len() / 2)
            .map(|at| u8::from_str_radix(&headers[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let read = Recording::decode(status.parse().unwrap(), &headers, recording.bytes().clone());
        assert_eq!(read.unwrap(), recording);
    }
}
