//! Runs `corecached::store::fuzz` with libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| corecached::store::fuzz::run(input));
