#!/bin/sh
# Builds jobmon, starts a gateway on a free port of the loopback interface, runs an example job under jobmon, and shows what
# Prometheus would scrape while the job runs and after it. Needs a Rust toolchain and nothing else; leaves nothing behind.
set -eu
cd "$(dirname "$0")/.."

echo "== building"
cargo build --locked --release
jobmon="${CARGO_TARGET_DIR:-target}/release/jobmon"

state="$(mktemp -d)"
gateway=
cleanup() {
    [ -z "$gateway" ] || kill "$gateway" 2>/dev/null || true
    rm -rf "$state"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

echo "== starting a gateway"
# It is there before anybody looks into it.
: > "$state/gateway.log"
"$jobmon" gateway --web.listen-address=127.0.0.1:0 2>> "$state/gateway.log" &
gateway=$!
address=
tries=0
while [ -z "$address" ]; do
    address="$(sed -n 's/.*msg="listening" address=//p' "$state/gateway.log")"
    tries=$((tries + 1))
    if [ "$tries" -gt 100 ] || ! kill -0 "$gateway" 2>/dev/null; then
        cat "$state/gateway.log" >&2
        exit 1
    fi
    sleep 0.1
done
echo "it listens on http://$address"

# A scrape is one GET, which any of these can do.
scrape() {
    if command -v curl >/dev/null; then
        curl --silent --fail "http://$address/metrics"
    elif command -v wget >/dev/null; then
        wget -q -O - "http://$address/metrics"
    else
        bash -c 'exec 3<>"/dev/tcp/${0%:*}/${0##*:}"; printf "GET /metrics HTTP/1.0\r\n\r\n" >&3; cat <&3' "$address"
    fi
}

echo "== running a job: jobmon --push-interval 1s -- examples/count-items.sh"
"$jobmon" --push-url "http://$address" --push-interval 1s -- examples/count-items.sh &
job=$!
until scrape | grep -q '^processed_items' || ! kill -0 "$job" 2>/dev/null; do sleep 0.1; done
echo "== what Prometheus scrapes while it runs"
scrape | grep 'job="count-items"' | grep -E '^(jobmon_running|processed_items)'
wait "$job"

echo "== what Prometheus scrapes after it"
scrape | grep 'job="count-items"'
echo "== done; point a real Prometheus at the gateway with honor_labels: true, as in examples/compose/prometheus.yml"
