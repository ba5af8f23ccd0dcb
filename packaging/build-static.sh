#!/bin/sh
# Builds the static binary that packages and containers ship, and prints its path. It needs no library, no NSS module and no
# loader: it runs in an empty directory.
#
# The target is named so that only the program is linked statically: procedural macros are libraries. A fixed address saves
# the relocations of a static-pie at every start. Random numbers come from the system call: a static program cannot look for
# the C library's function at run time, and /dev/urandom may not be there.
set -eu
cd "$(dirname "$0")/.."
target="$(rustc -vV | sed -n 's/^host: //p')"
export RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static --cfg getrandom_backend=\"linux_getrandom\""
cargo build --locked --release --target "$target" >&2
echo "${CARGO_TARGET_DIR:-$PWD/target}/$target/release/jobmon"
