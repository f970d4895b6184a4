# Builds the Rust programs, outside of the workspace and of its target folder.
set -eu
CARGO_TARGET_DIR="$PGW_DRIVER_CACHE/rust" cargo build --quiet --locked
