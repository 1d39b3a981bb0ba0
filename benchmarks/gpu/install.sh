# Sourced by the other scripts: installs the carried wheels and the project into a folder of its own, offline, leaving
# the machine's Python as it is, and notes what the results were measured with. Needs OUT, the folder for results.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
: "${OUT:?name the folder for raw results: OUT=results $0}"
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
PYTHON=${PYTHON:-python3}
WHEELS=${WHEELS:-benchmarks/gpu/wheels}
ls "$WHEELS"/*.whl > /dev/null || { echo "no wheels: run benchmarks/gpu/wheels.sh first" >&2; exit 3; }

SITE=$(mktemp -d)
trap 'rm -rf "$SITE"' EXIT
offline() { "$PYTHON" -m pip install --quiet --no-index --no-deps --find-links "$WHEELS" "$@"; }
offline --target "$SITE/build" setuptools # apart, so that torch goes on with the one that it knows
offline --target "$SITE/wheels" $(ls "$WHEELS"/*.whl | grep -v /setuptools-)
PYTHONPATH="$SITE/build" offline --no-build-isolation --target "$SITE/project" .
export PYTHONPATH="$SITE/project:$SITE/wheels" PATH="$SITE/project/bin:$PATH"

date --utc +%FT%TZ > "$OUT/date.txt"
"$PYTHON" -m pip list --format freeze > "$OUT/versions.txt"
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv > "$OUT/device.csv" 2>&1 ||
  echo "no NVIDIA GPU here" > "$OUT/device.csv"
