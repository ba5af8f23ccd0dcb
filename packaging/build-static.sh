#!/bin/sh
# Builds the static binary that packages and containers ship, and prints its path. It needs no library, no NSS module and no
# loader: it runs in an empty directory.
#
# The target is named so that only the program is linked statically: procedural macros are libraries. A fixed address saves
# the relocations of a static-pie at every start.
set -eu
cd "$(dirname "$0")/.."
target="$(rustc -vV | sed -n 's/^host: //p')"
RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static" cargo build --locked --release --target "$target" >&2
echo "${CARGO_TARGET_DIR:-$PWD/target}/$target/release/jobmon"
