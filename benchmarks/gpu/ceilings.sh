#!/usr/bin/env bash
# What the GPU and its host can do at most, `autotune doctor` three times, and the tests of it. Ends within six minutes.
# Raw results: $OUT/full-1.json … (every ceiling with its interval), $OUT/quick.json, $OUT/autotune.db, $OUT/*.log.
source "$(dirname "$0")/install.sh"
examine() { # NAME OPTION…
  local name=$1
  shift
  timeout --signal=INT --kill-after=15 80 autotune doctor --db "$OUT/autotune.db" --json "$@" \
    > "$OUT/$name.json" 2> "$OUT/$name.log" || echo "$name: exit code $?"
}
for run in 1 2 3; do examine "full-$run" --device cuda --full --again; done
examine quick --device cuda --quick --again
examine cpu --device cpu --full --again
timeout --kill-after=15 80 "$PYTHON" -m pytest tests/gpu/test_gpu_ceilings.py -m gpu -rA -p no:cacheprovider \
  > "$OUT/pytest.log" 2>&1 || tail -n 60 "$OUT/pytest.log"
cat "$OUT/device.csv"
grep -E "^(PASSED|FAILED|ERROR|SKIPPED)" "$OUT/pytest.log" || true
"$PYTHON" benchmarks/gpu/table.py ceilings "$OUT"/full-1.json "$OUT"/full-2.json "$OUT"/full-3.json "$OUT"/quick.json \
  "$OUT"/cpu.json
