#!/usr/bin/env bash
# The tests that need a GPU. Ends within nine minutes. Raw results: $OUT/junit.xml, $OUT/pytest.log.
source "$(dirname "$0")/install.sh"
timeout --kill-after=15 480 "$PYTHON" -m pytest tests/gpu -m gpu -rA --junitxml="$OUT/junit.xml" -p no:cacheprovider \
  > "$OUT/pytest.log" 2>&1 && code=0 || code=$?
[ "$code" -eq 0 ] || tail -n 150 "$OUT/pytest.log"
cat "$OUT/device.csv"
[ -f "$OUT/junit.xml" ] || { echo "cut off after 480 s, see pytest.log (exit code $code)"; exit "$code"; }
"$PYTHON" benchmarks/gpu/table.py tests "$OUT/junit.xml"
exit "$code"
