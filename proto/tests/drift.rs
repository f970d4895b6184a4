//! The generated code is committed; this test makes it anew and compares, or writes it with `PGWITNESS_BLESS=1`.

use std::{env, fs, path::PathBuf};

#[test]
fn generated_code_is_what_the_schemas_say() {
    // Asked for when it runs: a target folder that several checkouts share may hold the test of another one.
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs this"));
    let schemas =
        ["event", "attribution", "delivery"].map(|name| here.join(format!("pgwitness/v1/{name}.proto")));
    let descriptors = protox::compile(schemas, [&here]).expect("the schemas compile");
    let out = tempfile::tempdir().expect("a temporary folder");
    tonic_prost_build::configure()
        .out_dir(out.path())
        .bytes(".pgwitness.v1.SignedBatch")
        .bytes(".pgwitness.v1.BatchPayload")
        .compile_fds(descriptors)
        .expect("code is generated");
    let made = fs::read_to_string(out.path().join("pgwitness.v1.rs")).expect("the generated file");
    let committed = here.join("src/generated/pgwitness.v1.rs");
    if env::var_os("PGWITNESS_BLESS").is_some() {
        fs::write(&committed, &made).expect("the committed file is writable");
    }
    let kept = fs::read_to_string(&committed).unwrap_or_default();
    assert!(
        kept == made,
        "generated code has drifted: run `PGWITNESS_BLESS=1 cargo test -p pgwitness-proto`"
    );
}
