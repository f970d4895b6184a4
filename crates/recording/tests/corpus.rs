//! Every input of `tests/corpus` that is for this crate, through the same code that `cargo xtask fuzz` runs.

use std::{fs, path::Path};

type Body = fn(&[u8]);

#[test]
fn the_corpora_break_nothing() {
    let bodies: [(&str, Body); 3] = [
        ("tcp", recording::fuzz_tcp),
        ("pcap", recording::fuzz_pcap),
        ("segments", recording::fuzz_segments),
    ];
    for (target, body) in bodies {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/corpus")
            .join(target);
        let mut inputs = 0;
        for input in fs::read_dir(&folder).expect("the corpus is in the repository") {
            let path = input.expect("readable").path();
            // The name of the input that breaks something.
            println!("{}", path.display());
            body(&fs::read(path).expect("readable"));
            inputs += 1;
        }
        assert!(inputs > 10, "{target}: {inputs} inputs");
    }
}
