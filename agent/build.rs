//! Builds the kernel side, so that the agent carries it.

use std::{env, path::Path};

fn main() {
    let source = Path::new("../ebpf");
    for watched in [
        "../ebpf/src",
        "../ebpf/Cargo.toml",
        "../ebpf/Cargo.lock",
        "../crates/ebpf-abi/src",
    ] {
        println!("cargo::rerun-if-changed={watched}");
    }
    let out = env::var("OUT_DIR").unwrap_or_default();
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    match ebpf_build::build(source, &Path::new(&out).join("ebpf"), &arch) {
        Ok(object) => println!("cargo::rustc-env=PGWITNESS_EBPF_OBJECT={}", object.display()),
        Err(message) => println!("cargo::error={message}"),
    }
}
