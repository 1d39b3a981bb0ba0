#!/usr/bin/env bash
# Two studies: the default space on the GPU, and the 9B GLM-4 shape of search_spaces/open_autoglm.yaml. Ends within
# nine minutes. Raw results: $OUT/autotune.db (every sample), $OUT/*.json (how each ended), $OUT/*.log.
source "$(dirname "$0")/install.sh"
study() { # NAME LIMIT_S FILE [KEY=VALUE…]
  local name=$1 limit_s=$2 file=$3 overrides=()
  shift 3
  for override in "$@"; do overrides+=(--set "$override"); done
  timeout --signal=INT --kill-after=15 "$limit_s" autotune study start "$file" --name "$name" \
    --db "$OUT/autotune.db" --json "${overrides[@]}" > "$OUT/$name.json" 2> "$OUT/$name.log" || echo "$name: exit code $?"
}
study inference 130 search_spaces/inference.yaml workload.device=cuda budget.minutes=1.5 budget.trials=16
study open-autoglm 360 search_spaces/open_autoglm.yaml budget.minutes=5 budget.trials=12 protocol.max_measure_s=3 \
  protocol.time_limit_s=90
cat "$OUT/device.csv"
"$PYTHON" benchmarks/gpu/table.py studies "$OUT/inference.json" "$OUT/open-autoglm.json"
