#!/bin/sh
# What jobmon adds to a command: start-up against a bare `true` and against tini, with and without a push on loopback, and
# its resident memory while the command runs. All in one run on one machine, so that the differences mean something.
#
# Needs hyperfine, tini and python3 (apt-get install hyperfine tini python3). Prints milliseconds (median) and what is added.
set -eu
cd "$(dirname "$0")/.."
jobmon="$(sh packaging/build-static.sh)"
true="$(command -v true)"
work="$(mktemp -d)"
gateway=
cleanup() { [ -z "$gateway" ] || kill "$gateway"; rm -rf "$work"; }
trap cleanup EXIT INT TERM

"$jobmon" gateway --web.listen-address=127.0.0.1:0 2> "$work/gateway.log" &
gateway=$!
until url="$(sed -n 's/.*listening" address=/http:\/\//p' "$work/gateway.log")"; [ -n "$url" ]; do sleep 0.05; done

set -- --shell=none --warmup 50 --runs 500 --export-json "$work/times.json"
set -- "$@" --command-name "true" "$true"
command -v tini >/dev/null && set -- "$@" --command-name "tini -- true" "$(command -v tini) -- $true"
set -- "$@" --command-name "timeout 10 true" "$(command -v timeout) 10 $true"
set -- "$@" --command-name "jobmon --no-push -- true" "$jobmon --no-push -- $true"
set -- "$@" --command-name "jobmon -- true, one push" "$jobmon --push-url $url -- $true"
hyperfine "$@" >/dev/null

python3 - "$work/times.json" <<'PYTHON'
import json, sys
results = json.load(open(sys.argv[1]))["results"]
bare = results[0]["median"]
print(f"{'command':28} {'median ms':>10} {'adds ms':>8}")
for result in results:
    print(f"{result['command']:28} {result['median'] * 1000:10.2f} {(result['median'] - bare) * 1000:8.2f}")
PYTHON

"$jobmon" --no-push -- sleep 2 &
waiting=$!
sleep 0.3
resident() { awk '/VmRSS/ {all = $2} /RssAnon/ {own = $2} END {print all " kB, " own " kB of it not shared code"}' "/proc/$1/status"; }
echo "resident memory while the command runs: $(resident "$waiting")"
wait "$waiting"
"$jobmon" --push-url "$url" --push-interval 200ms -- sleep 2 &
waiting=$!
sleep 1.05
echo "the same after pushes:                  $(resident "$waiting")"
wait "$waiting"
