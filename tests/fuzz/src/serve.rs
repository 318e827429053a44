//! Runs `corecached::worker::serve::fuzz` with libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| corecached::worker::serve::fuzz::run(input));
