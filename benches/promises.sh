#!/usr/bin/env bash
# What promises cost beside pushes, with 100,000 groups that all promise something: the processor while nothing happens, and
# how long the API takes. What arming, firing and revival take of a push: cargo bench --bench store -- promise
#
#   bash benches/promises.sh [GROUPS]
set -euo pipefail
cd "$(dirname "$0")/.."
groups=${1:-100000}
cargo build --quiet --locked --release
port=19291
target/release/jobmon gateway --web.listen-address=127.0.0.1:$port --log.level=error &
gateway=$!
trap 'kill $gateway' EXIT
url=http://127.0.0.1:$port
curl -s -o /dev/null --retry 50 --retry-connrefused --retry-delay 1 $url/-/ready

# Ten series for each group, a thousand groups in each push.
for ((from = 0; from < groups; from += 1000)); do
    awk -v from="$from" 'BEGIN {
        for (m = 0; m < 10; m++) {
            printf "# TYPE m%d gauge\n", m
            for (i = from; i < from + 1000; i++) printf "m%d{job=\"bench\",instance=\"machine-%d\"} %d\n", m, i, i
        }
    }' | curl -s -f -X PUT --data-binary @- "$url/metrics?group_by=job,instance&expect=1h&ttl=36h"
done
echo "groups: $(curl -s "$url/api/v1/groups?limit=1" | grep -o '"total":[0-9]*')"

ticks() { awk '{print $14 + $15}' /proc/$gateway/stat; }
before=$(ticks)
sleep 10
echo "processor time in 10 idle seconds: $((($(ticks) - before) * 1000 / $(getconf CLK_TCK))) ms"

for query in 'limit=50' 'limit=50&after=L2pvYi9iZW5jaC9pbnN0YW5jZS9tYWNoaW5lLTU' 'limit=50&sort=age' 'limit=50&sort=state' \
    'limit=50&match\[\]=%7Binstance%3D~%22machine-9.*9%22%7D'; do
    for _ in $(seq 200); do
        echo "url = \"$url/api/v1/groups?$query\""
        echo 'output = "/dev/null"'
    done | curl -s -K - -w '%{time_total}\n' |
        sort -n | awk -v query="$query" '{ms[NR] = $1 * 1000}
            END {printf "GET /api/v1/groups?%s: median %.2f ms, p99 %.2f ms\n", query, ms[int(NR / 2)], ms[int(NR * 0.99)]}'
done
