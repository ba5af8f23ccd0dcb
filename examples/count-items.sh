#!/bin/sh
# A job that works for a few seconds and says how far it is. Under jobmon $JOBMON_METRICS names a FIFO; what is written into
# it in Prometheus' text format is pushed while the job runs and when it ends. Alone, the job works as well.
metrics="${JOBMON_METRICS:-/dev/null}"

cat > "$metrics" <<'METRICS'
# HELP processed_items Items that this run has processed.
# TYPE processed_items counter
METRICS

items=0
while [ "$items" -lt "${1:-30}" ]; do
    items=$((items + 1))
    echo "processed_items $items" > "$metrics"
    sleep 0.1
done
echo "processed $items items"
