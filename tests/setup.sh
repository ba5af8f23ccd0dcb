#!/bin/sh
# Fetches what the tests start: Prometheus, Alertmanager, Pushgateway and node exporter as Debian packages, of this release
# and of the newest one, unpacked beside the system's (nothing is started, nothing is replaced), and client libraries.
# Everything goes to target/peers. Needs a Debian or Ubuntu with apt; asks for root only to refresh or install packages.
set -eu
cd "$(dirname "$0")/.."
peers="$PWD/target/peers"
done_mark="$peers/.done-10"
[ -e "$done_mark" ] && exit 0

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

rm -rf "$peers"
mkdir -p "$peers/download"
echo "tests/setup.sh: fetching what the tests start" >&2
as_root apt-get update -q >&2
missing=
for tool in curl:curl python3:python3 pip3:python3-pip strace:strace unshare:util-linux cc:gcc openssl:openssl faketime:faketime tinyproxy:tinyproxy-bin \
    node:nodejs npm:npm ruby:ruby pkg-config:pkg-config chromium:chromium chromedriver:chromium-driver; do
    command -v "${tool%%:*}" >/dev/null || missing="$missing ${tool##*:}"
done
# The Ruby client as Debian has it, and what the Rust client's TLS is built with.
for package in ruby-prometheus-client-mmap libssl-dev; do
    dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
# shellcheck disable=SC2086
[ -z "$missing" ] || as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >&2

# unpack DIRECTORY: unpacks what was downloaded.
unpack() {
    for package in "$peers"/download/*.deb; do dpkg -x "$package" "$1"; done
    rm -f "$peers"/download/*.deb
}

# APT's sandbox user may not write here; the download is checked all the same.
(cd "$peers/download" && apt-get download -q -o APT::Sandbox::User=root \
    prometheus prometheus-pushgateway prometheus-node-exporter prometheus-alertmanager >&2)
unpack "$peers/release"

# The newest versions come from Debian's testing suite, by the mirror that this machine uses already. They are Go programs
# and need nothing else of that suite.
mirror=$(apt-get indextargets --format '$(SITE) $(COMPONENT) $(SUITE)' 'Created-By: Packages' |
    awk '$2 == "main" && $1 !~ /security/ {print $1; exit}')
newest="$peers/apt"
mkdir -p "$newest/lists/partial" "$newest/archives/partial"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror testing main" > "$newest/sources.list"
set -- -q -o Dir::Etc::sourcelist="$newest/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$newest/lists" \
    -o Dir::Cache="$newest" -o APT::Sandbox::User=root
apt-get "$@" update >&2
(cd "$peers/download" && apt-get "$@" download prometheus prometheus-pushgateway promtool >&2)
unpack "$peers/newest"
rm -rf "$newest"

python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$peers/python" prometheus_client pyyaml openapi-spec-validator selenium >&2

npm install --silent --no-audit --no-fund --no-save --prefix "$peers/node" prom-client@15 >&2
cargo build --quiet --locked --release --manifest-path tests/clients/rust/Cargo.toml --target-dir "$peers/rust" >&2
touch "$done_mark"
