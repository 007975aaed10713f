#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| conductor::config::fuzzing::env_file(data));
