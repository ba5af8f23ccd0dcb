#!/bin/sh
# Processes a few items every SIMULATOR_PAUSE seconds, for ever, or SIMULATOR_ROUNDS times.
echo "# TYPE processed_items counter" > "$JOBMON_METRICS"
items=0
round=0
while [ -z "${SIMULATOR_ROUNDS:-}" ] || [ "$round" -lt "$SIMULATOR_ROUNDS" ]; do
    round=$((round + 1))
    items=$((items + 3))
    echo "processed_items $items" > "$JOBMON_METRICS"
    sleep "${SIMULATOR_PAUSE:-5}"
done
