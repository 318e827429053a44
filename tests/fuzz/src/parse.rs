//! `corecached::protocol::fuzz`, by libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| corecached::protocol::fuzz::run(input));
