//! The fuzzer of the target that SENTINEL_FUZZ_TARGET names; its options are those of libFuzzer.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sentinel_fuzz::{TARGETS, Target};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("SENTINEL_FUZZ_TARGET").unwrap_or_default();
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    let found = TARGETS.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("SENTINEL_FUZZ_TARGET is {name:?}, not one of {}", names.join(", ")))
});

fuzz_target!(|data: &[u8]| (TARGET.run)(data));
