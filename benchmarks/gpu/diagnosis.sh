#!/usr/bin/env bash
# The labelled suite's GPU cases: is the diagnosis right on a GPU? Ends within nine minutes. Raw results:
# $OUT/diagnosis.json (every case with its evidence), $OUT/diagnosis.log.
source "$(dirname "$0")/install.sh"
PYTHONPATH="benchmarks:$PYTHONPATH" timeout --signal=INT --kill-after=15 500 "$PYTHON" benchmarks/diagnosis.py \
  --device cuda --patience 5 --json "$OUT/diagnosis.json" > "$OUT/diagnosis.log" 2>&1 || echo "exit code $?"
cat "$OUT/device.csv"
tail -n 60 "$OUT/diagnosis.log"
