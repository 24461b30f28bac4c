//! Fuzzes the target that `FUZZ_TARGET` names.
#![no_main]

use std::sync::OnceLock;

use lifeboat_fuzz::{TARGETS, Target};

static CHOSEN: OnceLock<Target> = OnceLock::new();

fn chosen() -> Target {
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
    TARGETS.iter().find(|(known, _)| *known == name).expect("a target of that name").1
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    CHOSEN.get_or_init(chosen)(bytes);
});
