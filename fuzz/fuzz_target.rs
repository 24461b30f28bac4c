//! Each target is a program of its own with this source; its name says which one it is.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    lifeboat_fuzz::run(env!("CARGO_BIN_NAME"), bytes);
});
