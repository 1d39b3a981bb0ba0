import dataclasses
import json
import os
import shlex
import string
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.errors import MachineError, UsageError
from autotuner.exporters.common import FileExporter
from autotuner.exporters.env_file import EnvExporter, as_variables, parse, quote, variable
from autotuner.exporters.json_file import JsonExporter, as_document
from autotuner.types import Contribution, Decision, Equivalence, Pair, Recommendation, Tier, Verification

CONFIG = {"batch_size": 32, "dtype": "bfloat16", "compile": True, "attn.kernel": "flash attention", "cache": None}
BASELINE = {**CONFIG, "batch_size": 8, "compile": False}


@pytest.fixture
def better():
    proof = Verification(
        Decision.BETTER, "1.31 times the throughput.", CONFIG, BASELINE, "throughput_tokens_per_s", 1.31, (1.25, 1.38),
        pairs=(Pair(0, 131.0, 100.0), Pair(1, 132.0, 101.0)), noise_floor_ratio=0.01,
        equivalence=Equivalence(True, Tier.ROUNDING, "KL 1e-6 nats", {"output_kl_nats": 1e-6}),
        metrics={"throughput_tokens_per_s": 131.0}, baseline_metrics={"throughput_tokens_per_s": 100.0},
        contributions=(Contribution("batch_size", 1.3, (0.0, float("inf")), 3),),
    )  # fmt: skip
    return Recommendation("serve", CONFIG, BASELINE, proof, {"gpu": "H200", "torch": "2.13"})


@pytest.fixture
def same(better):
    proof = dataclasses.replace(better.verification, decision=Decision.SAME, reason="no difference above 3 %")
    return dataclasses.replace(better, verification=proof)


EXPORTERS = [JsonExporter, EnvExporter]


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


def test_json_holds_configuration_evidence_and_environment(better, tmp_path):
    path = JsonExporter().export(better, tmp_path)
    assert path == tmp_path / "serve.json"
    found = json.loads(path.read_text())
    assert found == as_document(better)
    assert found["config"] == CONFIG
    assert found["baseline"] == BASELINE
    assert (found["format"], found["decision"], found["forced"]) == ("autotune/1", "BETTER", False)
    assert (found["gain_ratio"], found["gain_interval"], found["pairs"]) == (1.31, [1.25, 1.38], 2)
    assert found["equivalence"]["tier"] == "rounding"
    assert found["contributions"][0]["gain_interval"] == [0.0, None]
    assert found["environment"] == {"gpu": "H200", "torch": "2.13"}


def test_env_says_the_same_to_sh_shlex_and_its_own_parser(better, tmp_path):
    path = EnvExporter().export(better, tmp_path)
    expected = {
        "AUTOTUNE_BATCH_SIZE": "32", "AUTOTUNE_DTYPE": "bfloat16", "AUTOTUNE_COMPILE": "true",
        "AUTOTUNE_ATTN_KERNEL": "flash attention",
    }  # fmt: skip
    text = path.read_text()
    assert parse(text) == in_shell(path) == expected
    assert dict(item.split("=", 1) for item in shlex.split(text, comments=True)) == expected
    assert "# AUTOTUNE_CACHE is not set: its value is null" in text
    assert "1.31 times the throughput" in text
    assert "AUTOTUNE_BATCH_SIZE=32\n" in text  # bare, for docker


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


def test_a_reason_cannot_leave_its_comment(better, tmp_path):
    proof = dataclasses.replace(better.verification, reason="nice\nAUTOTUNE_EVIL=1\\")
    text = EnvExporter().export(dataclasses.replace(better, verification=proof), tmp_path).read_text()
    assert "AUTOTUNE_EVIL" not in parse(text)
    assert not any(line.endswith("\\") for line in text.splitlines())


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("decision", [d for d in Decision if d is not Decision.BETTER])
def test_what_is_not_better_is_refused_and_leaves_nothing(exporter, decision, same, tmp_path):
    proof = dataclasses.replace(same.verification, decision=decision)
    with pytest.raises(UsageError, match=f"{decision}, not BETTER") as refused:
        exporter().export(dataclasses.replace(same, verification=proof), tmp_path)
    assert "--force" in refused.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_force_writes_it_and_the_file_says_so(exporter, same, tmp_path):
    text = exporter(force=True).export(same, tmp_path).read_text()
    assert '"forced": true' in text or "# FORCED: this is not verified BETTER but SAME" in text
    assert "SAME" in text


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_force_alone_makes_nothing_forced(exporter, better, tmp_path):
    assert "FORCED" not in exporter(force=True).export(better, tmp_path).read_text().replace('"forced": false', "")


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_the_same_recommendation_gives_the_same_bytes(exporter, better, tmp_path):
    first, second = (exporter().export(better, tmp_path / name).read_bytes() for name in "ab")
    assert first == second


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_an_existing_file_is_replaced_only_by_force(exporter, better, tmp_path):
    path = exporter().export(better, tmp_path)
    path.write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        exporter().export(better, tmp_path)
    assert path.read_text() == "mine"
    assert exporter(force=True).export(better, tmp_path).read_text() != "mine"
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_directory_that_cannot_be_written_is_the_machines(exporter, better, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match=r"cannot write .*serve"):
        exporter().export(better, tmp_path / "file" / "below")


def test_a_full_disk_leaves_the_old_file_and_no_rest(better, tmp_path):
    resource = pytest.importorskip("resource")
    path = JsonExporter().export(better, tmp_path)
    before = path.read_bytes()
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from autotuner.errors import MachineError; from autotuner.exporters.json_file import JsonExporter\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try: JsonExporter(force=True).write(Path(sys.argv[1]), 'x' * 5000)\n"
        "except MachineError as error: sys.exit(error.exit_code)\n"
    )
    assert resource.RLIMIT_FSIZE >= 0
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(["."])}
    done = subprocess.run([os.sys.executable, "-c", code, str(path)], env=env, check=False)
    assert done.returncode == 3
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_no_secret_of_the_environment_is_exported(exporter, better, same, tmp_path, monkeypatch):
    secrets = [f"{name}-{'7fq' * 5}{i}" for i, name in enumerate(string.ascii_letters)]
    for i, secret in enumerate(secrets):
        monkeypatch.setenv(f"SECRET_{i}_TOKEN", secret)
        monkeypatch.setenv(f"AUTOTUNE_SECRET_{i}", secret)
    text = exporter(force=True).export(same, tmp_path).read_text()
    assert not [secret for secret in secrets if secret in text]


def test_an_exporter_is_a_plugin_with_a_kind_and_no_other_options():
    assert [exporter().kind for exporter in EXPORTERS] == ["json", "env"]
    assert all(issubclass(exporter, FileExporter) and exporter.target_version for exporter in EXPORTERS)
    with pytest.raises(ValueError, match="Extra inputs"):
        JsonExporter(forced=True)
