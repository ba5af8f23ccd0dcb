# The commands of the README. Everything is built by cargo; this only names what is run.

.PHONY: test static bench

# Fetches the programs that the tests start, builds the binaries that the packaging tests run (here, so that no test shares
# the machine with a compiler), and runs everything, with no signal ignored that the caller may have ignored.
test:
	sh tests/setup.sh
	cargo build --locked --release
	JOBMON_STATIC="$$(sh packaging/build-static.sh)" env --default-signal cargo test --locked --lib --test jobmon

static:
	sh packaging/build-static.sh

bench:
	sh benches/startup.sh
