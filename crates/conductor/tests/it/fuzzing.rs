//! A fuzz target without a corpus that is replayed, or a corpus without a target, would be forgotten.

use std::collections::BTreeSet;
use std::fs;

use crate::repository::{files, read, root};

/// The corpora are for the tests: small enough to be read in a moment.
const CORPORA_MAX_BYTES: u64 = 1024 * 1024;

#[test]
fn every_fuzz_target_has_a_corpus_that_the_tests_replay() {
    let fuzz = root().join("fuzz");
    let manifest = read(&fuzz.join("Cargo.toml"));
    let sections = manifest.split("[[bin]]").skip(1);
    let targets: BTreeSet<_> = sections.map(|section| section.split('"').nth(1).expect("a name").to_owned()).collect();
    assert!(targets.len() >= 6, "only {targets:?}");
    let replays: String = files(&root().join("crates"), "fuzzing.rs").iter().map(|path| read(path)).collect();
    let mut bytes = 0;
    for target in &targets {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")), "{target}");
        let source = read(&fuzz.join(format!("fuzz_targets/{target}.rs")));
        assert!(source.contains(&format!("fuzzing::{target}(data)")), "{source}");
        assert!(replays.contains(&format!("replay(\"{target}\", super::{target})")), "no test replays {target}");
        for entry in fs::read_dir(fuzz.join("corpus").join(target)).expect("it has a corpus") {
            bytes += entry.expect("an entry can be read").metadata().expect("a file").len();
        }
    }
    assert!(bytes <= CORPORA_MAX_BYTES, "the corpora have {bytes} bytes: `cargo fuzz cmin` makes them smaller");
    let folders = fs::read_dir(fuzz.join("corpus")).expect("there are corpora");
    let folders: BTreeSet<_> =
        folders.map(|entry| entry.expect("an entry").file_name().into_string().unwrap()).collect();
    assert_eq!(folders, targets);
    let written = fs::read_dir(fuzz.join("fuzz_targets")).expect("there are targets").count();
    assert_eq!(written, targets.len(), "a file is no target");
}
