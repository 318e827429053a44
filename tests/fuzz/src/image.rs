//! Runs `corecached::server::restart::fuzz` with libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| corecached::server::restart::fuzz::run(input));
