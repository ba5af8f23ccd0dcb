#!/bin/sh
# What jobmon adds to a command, beside those who do some of what it does: start-up with and without a push on loopback, and
# its resident memory while the command runs. All in one run on one machine, so that the differences mean something.
#
# Needs Debian's hyperfine, tini, dumb-init, moreutils (chronic), curl and python3; whatever of the peers is missing is left
# out. Prints milliseconds (median of 500) and what is added to a bare `true`.
set -eu
cd "$(dirname "$0")/.."
work="$(mktemp -d)"
gateway=
cleanup() { [ -z "$gateway" ] || kill "$gateway"; rm -rf "$work"; }
trap cleanup EXIT INT TERM

# Installed, as the peers are: what a linker has just written lies in the page cache in smaller pieces.
jobmon="$work/jobmon"
install -m 755 "$(sh packaging/build-static.sh)" "$jobmon"
true="$(command -v true)"
export JOBMON_SPOOL_DIR="$work/spool"

"$jobmon" gateway --web.listen-address=127.0.0.1:0 2> "$work/gateway.log" &
gateway=$!
until url="$(sed -n 's/.*listening" address=/http:\/\//p' "$work/gateway.log")"; [ -n "$url" ]; do sleep 0.05; done

# What people write who have no jobmon.
cat > "$work/wrapper.sh" <<'WRAPPER'
#!/bin/bash
url=$1; shift
start=$(date +%s.%N)
"$@"
code=$?
curl -s --max-time 10 --data-binary @- "$url/metrics/job/$(basename "$1")" <<METRICS
job_exit_code $code
job_start_timestamp_seconds $start
job_end_timestamp_seconds $(date +%s.%N)
METRICS
exit $code
WRAPPER
chmod +x "$work/wrapper.sh"

set -- --shell=none --warmup 50 --runs 500 --export-json "$work/times.json" --command-name "true" "$true"
peer() {
    program="$(command -v "${2%% *}" || true)"
    [ -z "$program" ] || printf '%s\n%s\n' "$1" "$program ${2#* } $true" >> "$work/peers"
}
peer "tini (static)" "tini-static --"
peer "tini" "tini --"
peer "dumb-init" "dumb-init --"
peer "timeout 10" "timeout 10"
peer "chronic" "chronic --"
while read -r name && read -r command; do set -- "$@" --command-name "$name" "$command"; done < "$work/peers"
set -- "$@" --command-name "jobmon --no-push --metrics off" "$jobmon --no-push --metrics off -- $true"
set -- "$@" --command-name "jobmon --no-push" "$jobmon --no-push -- $true"
set -- "$@" --command-name "jobmon, one push" "$jobmon --push-url $url -- $true"
set -- "$@" --command-name "bash and curl, one push" "$work/wrapper.sh $url $true"
hyperfine "$@" >/dev/null

python3 - "$work/times.json" <<'PYTHON'
import json, sys
results = json.load(open(sys.argv[1]))["results"]
bare = results[0]["median"]
print(f"{'command':32} {'median ms':>10} {'adds ms':>8}")
for result in results:
    print(f"{result['command']:32} {result['median'] * 1000:10.2f} {(result['median'] - bare) * 1000:8.2f}")
PYTHON

resident() {
    pids="$1 $(cat "/proc/$1/task/$1/children")"
    for pid in $pids; do
        grep -q '^sleep' "/proc/$pid/comm" || awk '/^Name/ {name = $2} /VmRSS/ {all = $2} /RssAnon/ {own = $2} END {printf "%s %s kB (%s kB of it private)  ", name, all, own}' "/proc/$pid/status"
    done
    echo
}
"$jobmon" --no-push -- sleep 2 &
waiting=$!
sleep 0.5
echo "resident while the command runs: $(resident "$waiting")"
wait "$waiting"
"$jobmon" --push-url "$url" --push-interval 200ms -- sleep 2 &
waiting=$!
sleep 1.05
echo "the same after pushes:           $(resident "$waiting")"
wait "$waiting"
