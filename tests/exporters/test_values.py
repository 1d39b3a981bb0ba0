"""Values in files that people and programs read: env, json, python, patch, optuna."""

import json
import os
import shlex
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recommended import INFERENCE, PLAIN, SERVE

from autotuner.errors import UsageError
from autotuner.exporters.env_file import EnvExporter
from autotuner.exporters.json_file import JsonExporter
from autotuner.exporters.python_file import PythonExporter, read_config
from autotuner.exporters.variables import as_variables, parse, quote, variable


def in_shell(path) -> dict[str, str]:
    """What `sh` makes of a file, in an empty environment."""
    out = subprocess.run(
        ["sh", "-c", 'set -a; . "$0"; env -0', str(path)],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        check=True,
    ).stdout.decode()
    found = dict(item.split("=", 1) for item in out.split("\0") if item)
    return {name: value for name, value in found.items() if name.startswith("AUTOTUNE_")}


EXPECTED = {
    "AUTOTUNE_BATCH_SIZE": "32", "AUTOTUNE_DTYPE": "bfloat16", "AUTOTUNE_COMPILE": "true",
    "AUTOTUNE_ATTN_KERNEL": "flash attention",
}  # fmt: skip


def test_sh_shlex_systemd_and_our_parser_read_the_same(tmp_path):
    files = EnvExporter().draft(PLAIN.config, PLAIN).files
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert in_docker(files["serve.docker.env"]) == EXPECTED
    text = files["serve.env"].decode()
    assert parse(text) == in_shell(tmp_path / "serve.env") == in_shell(tmp_path / "serve.sh") == EXPECTED
    assert dict(item.split("=", 1) for item in shlex.split(text, comments=True)) == EXPECTED
    assert "# AUTOTUNE_CACHE is not set: its value is null" in text
    unit = files["serve.conf"].decode()
    assert unit.count("[Service]") == 1
    lines = [line.removeprefix("Environment=") for line in unit.splitlines() if line.startswith("Environment=")]
    assert dict(shlex.split(line)[0].split("=", 1) for line in lines) == EXPECTED


def in_docker(content: bytes) -> dict[str, str]:
    """What `docker run --env-file` makes of a file: a line is taken as it stands (docker/cli, opts/file.go)."""
    lines = [line.lstrip() for line in content.decode().split("\n")]
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("value", ["flash attention", 'a"b', "$HOME", " x ", "#x", "a\\", "it's", "", "a=b"])
def test_docker_gets_a_file_without_quotes(value):
    drawn = EnvExporter().draft({"v": value}, PLAIN)
    assert in_docker(drawn.files["serve.docker.env"]) == {"AUTOTUNE_V": value}
    assert "docker run --env-file {bundle}/serve.docker.env" in drawn.use


def test_what_a_server_was_started_with_is_there_under_its_own_name():
    drawn = EnvExporter().draft(SERVE.config, SERVE)
    variables = parse(drawn.files["transformers_serve.env"].decode())
    assert variables["OMP_NUM_THREADS"] == variables["AUTOTUNE_THREADS"] == "1"
    assert "HF_HUB_CACHE" not in variables
    assert drawn.withheld == {"HF_HUB_CACHE": "it holds a folder or port of a trial"}


@settings(max_examples=40, deadline=None)
@given(value=st.text(st.characters(exclude_categories=["Cc", "Cs", "Cf", "Zl", "Zp", "Cn", "Co"]), max_size=30))
def test_any_printable_value_survives_the_shell(value, tmp_path_factory):
    if not value.isprintable():
        return
    path = tmp_path_factory.mktemp("env") / "x.env"
    line = f"AUTOTUNE_V={quote(value)}\n"
    path.write_text(line)
    assert parse(line) == in_shell(path) == {"AUTOTUNE_V": value}


@pytest.mark.parametrize("value", ['a"b', "a b", "$HOME", "`id`", "$(id)", "a\\", "it's", "", "#x", "~", "!x", "a;b"])
def test_awkward_values_are_quoted(value, tmp_path):
    path = tmp_path / "x.env"
    path.write_text(f"AUTOTUNE_V={quote(value)}\n")
    assert quote(value).startswith('"')
    assert in_shell(path) == {"AUTOTUNE_V": value} == parse(path.read_text())


@pytest.mark.parametrize("value", ["a\nb", "a\0b", "a\rb", "\x1b[31m", "a\u2028b"])
def test_a_value_that_needs_more_than_a_line_is_refused(value):
    with pytest.raises(UsageError, match="line break or control"):
        as_variables({"p": value})


def test_two_parameters_with_one_variable_are_refused():
    assert variable("a-b") == variable("a.b")
    with pytest.raises(UsageError, match="AUTOTUNE_A_B"):
        as_variables({"a-b": 1, "a.b": 2})


def test_percent_signs_are_no_specifiers_to_systemd():
    files = EnvExporter().draft({"p": "5% of"}, PLAIN).files
    assert b'Environment="AUTOTUNE_P=5%% of"' in files["serve.conf"]


@pytest.mark.parametrize("value", [1, 2**60, -3, 0.1, 1e-9, 1e300, True, False, None, "a", "1", "true", "ü'\"\\n", ""])
def test_every_kind_of_value_comes_back_from_json_and_python(value):
    config = {"value": value, "other": 1}
    found = JsonExporter().draft(config, PLAIN).files["serve.json"]
    assert repr(json.loads(found)) == repr(config)
    text = PythonExporter().draft(config, PLAIN).files["serve_config.py"].decode()
    assert repr(read_config(text)) == repr(config)
    space: dict = {}
    exec(text, space)
    assert repr(space["CONFIG"]) == repr(config)


def test_the_python_module_applies_it(tmp_path):
    drawn = PythonExporter().draft(INFERENCE.config, INFERENCE)
    (tmp_path / "inference_config.py").write_bytes(drawn.files["inference_config.py"])
    program = (
        "import torch; from inference_config import CONFIG, apply, compiled, model_arguments\n"
        "apply(); module = torch.nn.Linear(1, 1)\n"
        "print(torch.get_num_threads(), model_arguments(), type(compiled(module)).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "1 {'dtype': 'bfloat16', 'attn_implementation': 'sdpa'} OptimizedModule\n"
