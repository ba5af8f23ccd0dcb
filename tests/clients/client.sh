#!/bin/sh
# Pushes every kind of metric with curl; called with the gateway's URL and what to do.
set -eu
group="$1/metrics/job/curl/path@base64/L2EvYg"
case $2 in
push) curl --fail --silent --show-error -X PUT --data-binary @- "$group" <<'METRICS' ;;
# HELP temperature How warm it is.
# TYPE temperature gauge
temperature{room="kitchen\n\""} 21.5
# TYPE items_total counter
items_total 3
# TYPE latency histogram
latency_bucket{le="0.1"} 0
latency_bucket{le="1"} 1
latency_bucket{le="+Inf"} 1
latency_sum 0.5
latency_count 1
# TYPE size summary
size{quantile="0.5"} 7
size_sum 7
size_count 1
plain 1e21
METRICS
add) echo 'more 1' | curl --fail --silent --show-error --data-binary @- "$group" ;;
replace) echo 'only 1' | curl --fail --silent --show-error -X PUT --data-binary @- "$group" ;;
delete) curl --fail --silent --show-error -X DELETE "$group" ;;
esac
