//! Each target is a program of its own with this source; its name says which one it is.
#![no_main]

#[allow(dead_code, reason = "the program uses the rest of what it shares with the targets")]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    targets::run(env!("CARGO_BIN_NAME"), bytes);
});
