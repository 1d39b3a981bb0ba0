#!/usr/bin/env bash
# Downloads the wheels that a GPU machine without a network lacks: CPython 3.12, Linux x86_64, beside torch,
# transformers, numpy, psutil, rich, typer, PyYAML, requests and pytest, which are there. Run where there is a network;
# carry benchmarks/gpu/wheels along. Pinned by constraints.txt; PYTHON_VERSION and WHEELS (a folder) choose others.
set -euo pipefail
cd "$(dirname "$0")/../.."
PACKAGES=(
  optuna colorlog                                             # proposals
  sqlalchemy alembic mako                                     # the record
  pydantic pydantic-core annotated-types typing-inspection typing-extensions
  opentelemetry-api opentelemetry-sdk opentelemetry-semantic-conventions opentelemetry-proto
  opentelemetry-exporter-otlp-common opentelemetry-exporter-otlp-proto-common
  opentelemetry-exporter-otlp-proto-http opentelemetry-exporter-http-transport
  googleapis-common-protos protobuf
  setuptools                                                  # builds the project itself there
)
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
WHEELS=${WHEELS:-benchmarks/gpu/wheels}
mkdir -p "$WHEELS"
rm -f "$WHEELS"/*.whl
"$PYTHON" -m pip download --quiet --only-binary :all: --no-deps --python-version "${PYTHON_VERSION:-3.12}" \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
  --constraint constraints.txt --dest "$WHEELS" "${PACKAGES[@]}"
ls -l "$WHEELS" | awk 'NR > 1 {printf "%8.2f MiB  %s\n", $5 / 1048576, $9; sum += $5}
  END {printf "%8.2f MiB  in %d wheels\n", sum / 1048576, NR - 1}'
