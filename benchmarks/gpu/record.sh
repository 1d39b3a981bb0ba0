#!/usr/bin/env bash
# One minute of every NVML and GPM answer under four loads: idle, copy, matmul, decode (the 9B GLM-4 shape): the traces
# that tests replay afterwards. Ends within nine minutes. Raw results: $OUT/trace-*.jsonl, $OUT/conditions.txt, *.log.
# To rehearse without a GPU: DEVICE=cpu STUDY=search_spaces/inference.yaml SECONDS_EACH=5, with the replay library.
source "$(dirname "$0")/install.sh"
DEVICE=${DEVICE:-cuda} STUDY=${STUDY:-search_spaces/open_autoglm.yaml} SECONDS_EACH=${SECONDS_EACH:-60}
READY_LIMIT_S=120 # weights of the decoder, made on the device

"$PYTHON" -c 'from autotuner.monitor import gpu
for one in gpu.conditions(): print(f"{one.name}: {one.sentence} [{one.mend}]")' | tee "$OUT/conditions.txt"

for load in idle copy matmul decode; do
  log=$OUT/$load.log
  timeout --kill-after=10 $((SECONDS_EACH + READY_LIMIT_S + 10)) "$PYTHON" benchmarks/gpu/loads.py "$load" \
    --device "$DEVICE" --study "$STUDY" --seconds $((SECONDS_EACH + 15)) > "$log" 2>&1 &
  pid=$!
  for ((waited = 0; waited < READY_LIMIT_S; waited++)); do
    grep -qs '^ready$' "$log" && break
    kill -0 "$pid" 2> /dev/null || break
    sleep 1
  done
  if grep -q '^ready$' "$log"; then
    sleep 2 # clocks rise, and the window before is over
    timeout --signal=INT --kill-after=10 $((SECONDS_EACH + 30)) autotune gpu record --seconds "$SECONDS_EACH" \
      --load "$load" --out "$OUT/trace-$load.jsonl" || echo "$load: exit code $?"
  else
    echo "$load did not start; see $log"
    tail -n 5 "$log"
  fi
  kill "$pid" 2> /dev/null || true
  wait "$pid" 2> /dev/null || true
done
cat "$OUT/device.csv"
traces=("$OUT"/trace-*.jsonl)
[ -e "${traces[0]}" ] || { echo "nothing was recorded"; exit 3; }
"$PYTHON" benchmarks/gpu/traces.py "${traces[@]}"
