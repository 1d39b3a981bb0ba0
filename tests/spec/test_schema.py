import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from autotuner.spec import json_schema

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "search_spaces"
FILES = sorted(FOLDER.glob("*.yaml"))
STUDY = {
    "workload": {"kind": "replay", "step_s": "0.001"},
    "parameters": {
        "batch_size": {"powers_of_two": [1, 16], "default": 4},
        "threads": {"int": [1, "cpu_cores"], "default": "cpu_cores"},
        "dtype": {"choices": ["float32", None], "default": None, "when": "batch_size > 1"},
    },
    "rules": [{"forbid": "batch_size > 8"}],
    "objectives": [{"maximize": "throughput_tokens_per_s"}],
    "limits": ["latency_p95_s <= 150 ms"],
    "executor": "inline",
    "probes": ["host", {"kind": "gpu"}],
    "protocol": {"block_s": 0.1},
}


@pytest.fixture(scope="module")
def validator():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_committed_schema_is_current():
    command = (
        "python -c 'import json; from autotuner.spec import json_schema; print(json.dumps(json_schema(), indent=2))'"
    )
    text = json.dumps(json_schema(), indent=2) + "\n"
    assert (FOLDER / "schema.json").read_text() == text, f"{command} > search_spaces/schema.json"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_shipped_file_passes(validator, path):
    validator.validate(yaml.safe_load(path.read_text()))


def test_accepts_a_study(validator):
    validator.validate(STUDY)


@pytest.mark.parametrize(
    "change",
    [
        {"device": "cpu"}, {"cpu_cores": 2}, {"budjet": {}}, {"budget": {"trails": 1}}, {"budget": {"trials": 0}},
        {"workload": {"kind": "unheard-of"}}, {"workload": {"kind": "replay", "setps": "1"}}, {"parameters": {}},
        {"parameters": {"a": {"int": [1, "cores"], "default": 1}}}, {"objectives": []}, {"limits": [5]},
        {"protocol": {"blok_s": 1}}, {"probes": ["unheard-of"]}, {"executor": {"kind": "unheard-of"}},
    ],
    ids=str,
)  # fmt: skip
def test_refuses_what_loading_refuses(validator, change):
    assert not validator.is_valid({**STUDY, **change})
