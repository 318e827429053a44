//! Runs `corecached::protocol::fuzz` with libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| corecached::protocol::fuzz::run(input));
