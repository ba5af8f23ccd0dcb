# The commands of the README. Everything is built by cargo; this only names what is run.

.PHONY: test static bench

# Fetches the programs that the tests start, builds the static binary that the packaging tests run, and runs everything.
test:
	sh tests/setup.sh
	JOBMON_STATIC="$$(sh packaging/build-static.sh)" cargo test --locked --lib --test jobmon

static:
	sh packaging/build-static.sh

bench:
	sh benches/startup.sh
