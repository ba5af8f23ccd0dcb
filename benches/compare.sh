#!/usr/bin/env bash
# jobmon's gateway beside Debian's Pushgateway and beside what the machine can do at all, in one run: the same load on each
# in turn. Prints a table of Markdown. As root, for apt-get; about a quarter of an hour.
#
#   bash benches/compare.sh [GROUPS...]      default: 10 1000 10000 100000
#   SECONDS_EACH=1 bash benches/compare.sh 10 1000      for a first look
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- 10 1000 10000 100000
seconds=${SECONDS_EACH:-5}

if ! command -v wrk >/dev/null || ! command -v curl >/dev/null; then
  apt-get update -qq
  apt-get install -qq -y --no-install-recommends wrk curl >/dev/null
fi
work=$(mktemp -d)
server=
trap 'kill $server 2>/dev/null || true; rm -rf "$work"' EXIT
if ! command -v prometheus-pushgateway >/dev/null; then
  (cd "$work" && apt-get download -qq prometheus-pushgateway >/dev/null && dpkg -x prometheus-pushgateway*.deb .)
fi
pushgateway=$(command -v prometheus-pushgateway || echo "$work/usr/bin/prometheus-pushgateway")
jobmon=$(sh packaging/build-static.sh)
cargo build --locked --release --quiet --example bare
bare=target/release/examples/bare
port=19471
url=http://127.0.0.1:$port

ready() { until curl -sf "$url/-/ready" >/dev/null; do kill -0 "$server"; sleep 0.005; done; }
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.3f", b - a }'; }
start() { "$@" >"$work/log" 2>&1 & server=$!; }
stop() { kill "$server"; wait "$server" 2>/dev/null || true; server=; }
load() { # connections seconds groups [sequential]: requests/s, p50, p99
  wrk -t1 -c"$1" -d"$2"s -s benches/push.lua "$url" -- "${@:3}" | awk '/^result/ {
    if ($(NF-1) > 0) print "errors:", $0 > "/dev/stderr"; printf "%s %s %s\n", $2, $5, $8 }'
}
fill() { # groups
  [ "$1" -le 10 ] || load 8 $(($1 / ${2:-10000} + 2)) "$1" sequential >/dev/null
}
scrape() { # curl arguments: seconds
  curl -s -o "$work/scrape" -w '%{time_total}\n' "$@" "$url/metrics"
}
best() { for _ in 1 2 3 4 5; do "$@"; done | sort -n | head -1; }
resident() { awk '/VmRSS/ { printf "%.0f", $2 / 1024 }' "/proc/$server/status"; }
ms() { awk -v s="$1" 'BEGIN { printf s < 0.01 ? "%.2f" : s < 0.1 ? "%.1f" : "%.0f", s * 1000 }'; }
# What is told of in the end: server, groups, what, value.
note() { printf '%s|%s|%s|%s\n' "$@" >>"$work/notes"; }
noted() { awk -F '|' -v n="$1" -v g="$2" -v w="$3" '$1 == n && $2 == g && $3 == w { print $4 }' "$work/notes"; }
part() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.1f %%", 100 * a / b }'; }
times() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.1f x", a / b }'; }
row() { printf '| %s |\n' "$(printf '%s | ' "$@" | sed 's/ | $//')"; }
# A hundredth of the groups: those that came to be together, as they do when one machine pushes them or a deployment does; or
# every hundredth, so that something changes everywhere.
change() { # groups order
  if [ "$2" = scattered ]; then load 8 1 "$1" scattered; else load 8 1 $(($1 / 100 > 0 ? $1 / 100 : 1)) sequential; fi >/dev/null
}
# The run with the middle rate of three.
loads() { for _ in 1 2 3; do load "$@"; done | sort -n | sed -n 2p; }

measure() { # name groups command...
  local name=$1 groups=$2; shift 2
  start "$@"; ready
  fill "$groups"
  read -r rate p50 p99 < <(loads 8 $seconds "$groups")
  local all first again near scattered plain pushing memory with_plain restart='' disk=''
  first=$(scrape -H 'Accept-Encoding: gzip')
  again=$(best scrape -H 'Accept-Encoding: gzip')
  change "$groups" sequential
  near=$(scrape -H 'Accept-Encoding: gzip')
  change "$groups" scattered
  scattered=$(scrape -H 'Accept-Encoding: gzip')
  memory=$(resident)
  plain=$(best scrape)
  all=$(stat -c %s "$work/scrape")
  with_plain=$(resident)
  (while sleep 1; do scrape >/dev/null; done) & local scraper=$!
  read -r _ _ pushing < <(load 8 $seconds "$groups")
  kill $scraper; wait $scraper 2>/dev/null || true
  stop
  if [ -e "$data" ]; then
    local begun; begun=$(now)
    start "$@"; ready; restart=$(since "$begun"); stop
    disk=$(du -sm "$data" | cut -f1)
    rm -rf "$data"
  fi
  note "$name" "$groups" pushes "$rate"; note "$name" "$groups" p99 "$pushing"
  note "$name" "$groups" plain "$plain"; note "$name" "$groups" first "$first"; note "$name" "$groups" again "$again"
  note "$name" "$groups" near "$near"; note "$name" "$groups" memory "$with_plain"; note "$name" "$groups" restart "$restart"
  row "$name" "$groups" "$rate" "$p50" "$p99" "$pushing" "$(ms "$plain")" "$(ms "$first")" "$(ms "$again")" \
    "$(ms "$near")" "$(ms "$scattered")" \
    "$(awk -v b="$all" 'BEGIN { printf "%.1f", b / 1e6 }')" "$memory" "$with_plain" "$restart" "$disk"
}

echo "$(nproc) processors, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), $(uname -r), $("$pushgateway" --version 2>&1 | head -1 | cut -d' ' -f1-3)"
echo
row server groups 'pushes/s' 'p50 ms' 'p99 ms' 'p99 while scraped' 'scrape ms' 'gzip, first' 'unchanged' '1 % changed' '1 %, scattered' MB 'RSS MB' 'with plain' 'restart s' 'disk MB'
row --- --- --- --- --- --- --- --- --- --- --- --- --- --- --- ---
data="$work/data"
for groups in "$@"; do
  measure 'jobmon, memory' "$groups" "$jobmon" gateway --web.listen-address=127.0.0.1:$port --log.level=error
  # What HTTP costs at all: for the pushes, and for sending what was scraped, plain and compressed.
  cp "$work/scrape" "$work/blob"
  start "$bare" 127.0.0.1:$port "$work/blob"; sleep 0.2
  read -r rate p50 p99 < <(loads 8 $seconds "$groups")
  plain=$(for _ in 1 2 3 4 5; do curl -s -o "$work/scrape" -w '%{time_total}\n' "$url/"; done | sort -n | head -1)
  stop
  gzip -1 -k "$work/blob"
  start "$bare" 127.0.0.1:$port "$work/blob.gz"; sleep 0.2
  zipped=$(for _ in 1 2 3 4 5; do curl -s -o "$work/scrape" -w '%{time_total}\n' "$url/"; done | sort -n | head -1)
  stop
  rm "$work/blob.gz"
  note bare "$groups" pushes "$rate"; note bare "$groups" plain "$plain"; note bare "$groups" again "$zipped"
  row 'bare HTTP' "$groups" "$rate" "$p50" "$p99" '' "$(ms "$plain")" '' "$(ms "$zipped")" '' '' '' '' '' '' ''
  measure 'jobmon, journal' "$groups" "$jobmon" gateway --web.listen-address=127.0.0.1:$port --log.level=error --storage.path="$data"
  measure 'Pushgateway, unchecked' "$groups" "$pushgateway" --web.listen-address=127.0.0.1:$port --log.level=error \
    --push.disable-consistency-check --persistence.file="$data"
  if [ "$groups" -le 10 ]; then
    measure 'Pushgateway' "$groups" "$pushgateway" --web.listen-address=127.0.0.1:$port --log.level=error --persistence.file="$data"
  fi
done

echo
echo "With 64 connections, ${groups} groups:"
echo
row server 'pushes/s' 'p50 ms' 'p99 ms'
row --- --- --- ---
for storage in "" --storage.path="$data"; do
  start "$jobmon" gateway --web.listen-address=127.0.0.1:$port --log.level=error $storage; ready
  fill "$groups"
  read -r rate p50 p99 < <(loads 64 $seconds "$groups")
  note "64 connections${storage:+, journal}" "$groups" pushes "$rate"
  row "jobmon${storage:+, journal}" "$rate" "$p50" "$p99"
  stop
  rm -rf "$data"
done

memory() { noted 'jobmon, memory' "$groups" "$1"; }
journal() { noted 'jobmon, journal' "$groups" "$1"; }
peer() { noted 'Pushgateway, unchecked' "$groups" "$1"; }
bare() { noted bare "$groups" "$1"; }
echo
echo "What that means, ${groups} groups:"
echo
row what measured 'at least'
row --- --- ---
row 'pushes/s, memory only, against a bare HTTP handler' "$(part "$(memory pushes)" "$(bare pushes)")" '60 %'
if [ "$1" != "$groups" ]; then
  row "pushes/s against those at $1 groups" "$(part "$(memory pushes)" "$(noted 'jobmon, memory' "$1" pushes)")" '85 %'
fi
row 'pushes/s with the journal against memory only, 64 connections' \
  "$(part "$(noted '64 connections, journal' "$groups" pushes)" "$(noted '64 connections' "$groups" pushes)")" '50 %'
row 'scrape against sending as many bytes' "$(times "$(memory plain)" "$(bare plain)")" 'within 3 x'
row 'scrape with gzip, nothing changed, against sending those bytes' "$(times "$(memory again)" "$(bare again)")" 'within 3 x'
row 'scrape with gzip, 1 % of the groups changed, against all' "$(part "$(memory near)" "$(memory first)")" 'within 10 %'
row 'p99 of a push while scraped every second, memory' "$(memory p99) ms" 'under 20 ms'
row 'p99 of a push while scraped every second, journal' "$(journal p99) ms" 'under 20 ms'
row 'memory per series, push times and renderings included' \
  "$(awk -v mib="$(memory memory)" -v g="$groups" 'BEGIN { printf "%.0f bytes", mib * 1048576 / (12 * g) }')" 'at most 200'
row 'restart, to ready' "$(journal restart) s" 'under 1.5 s'
row 'pushes/s against a Pushgateway without its check' "$(times "$(memory pushes)" "$(peer pushes)")" ''
row 'scrape, a Pushgateway against this' "$(times "$(peer plain)" "$(memory plain)")" ''
row 'memory, a Pushgateway against this' "$(times "$(peer memory)" "$(memory memory)")" ''
