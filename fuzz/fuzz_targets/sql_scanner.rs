#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| probity_txn::fuzzing::sql_scanner(data));
