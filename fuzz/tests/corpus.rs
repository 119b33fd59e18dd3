//! What the fuzzers have found, without a fuzzer: every file of the corpora through the function of its target.

use std::fs;
use std::path::{Path, PathBuf};

use sentinel_fuzz::{TARGETS, signed};

/// Most bytes of all corpora: they are part of the repository.
const MOST: u64 = 1 << 20;

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn no_input_of_the_corpora_breaks_a_decoder() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut bytes = 0;
    for target in TARGETS {
        let files = files(&corpora.join(target.name));
        assert!(!files.is_empty(), "the target {} has no corpus", target.name);
        for file in files {
            let data = fs::read(&file).unwrap();
            bytes += data.len() as u64;
            // The name of the file is in the output of a test that fails.
            println!("{}", file.display());
            (target.run)(&data);
        }
    }
    assert!(
        bytes < MOST,
        "the corpora have {bytes} bytes; at most {MOST} are allowed: scripts/fuzz --minimise"
    );
}

#[test]
fn every_corpus_has_a_target() {
    for directory in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")) {
        let name = directory.file_name().unwrap().to_str().unwrap();
        assert!(TARGETS.iter().any(|target| target.name == name), "no target is called {name}");
    }
}

/// The seeds of the verdicts have one that is allowed: otherwise nothing would be compared.
#[test]
fn a_request_of_the_corpus_is_allowed() {
    let seed = include_bytes!("../corpus/verdict/allowed");
    assert!(sentinel_fuzz::documents::is_allowed(seed));
}

/// The same for what is signed.
#[test]
fn what_is_genuine_in_the_corpora_counts() {
    assert!(signed::is_approved(include_bytes!("../corpus/approval/genuine")));
    assert!(signed::is_stamped(include_bytes!("../corpus/stamp/genuine")));
    for seed in [
        &include_bytes!("../corpus/ssh-signature/ed25519")[..],
        &include_bytes!("../corpus/ssh-signature/ecdsa-p256")[..],
    ] {
        assert!(signed::is_verified(seed));
    }
}
