"""The contract of an exporter, as a check that any test runner can call."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from autotuner.errors import MachineError, UsageError
from autotuner.plugins import Exporter
from autotuner.testing.options import check_options, complaint
from autotuner.types import Config, Decision, Equivalence, Pair, Recommendation, Tier, Verification

BASELINE: Config = {"batch_size": 8, "dtype": "float32", "compile": False, "threads": None}
CONFIG: Config = {**BASELINE, "batch_size": 32, "compile": True}
SECRET = "canary-4f1d7c0a92be"


def recommendation(decision: Decision = Decision.BETTER) -> Recommendation:
    """A recommendation with its proof, for tests."""
    proof = Verification(
        decision, "1.31 times the throughput", CONFIG, BASELINE, "throughput_tokens_per_s", 1.31, (1.25, 1.38),
        pairs=(Pair(0, 131.0, 100.0), Pair(1, 132.0, 101.0), Pair(2, 130.0, 99.0)), noise_floor_ratio=0.01,
        equivalence=Equivalence(True, Tier.ROUNDING, "off by 1e-7", {"output_error_ratio": 1e-7}),
        metrics={"throughput_tokens_per_s": 131.0}, baseline_metrics={"throughput_tokens_per_s": 100.0},
    )  # fmt: skip
    chosen = CONFIG if decision is Decision.BETTER else BASELINE
    return Recommendation("conformance", chosen, BASELINE, proof, {"gpu": "NVIDIA H200", "torch": "2.13.0"})


def check_exporter(exporter: Exporter, folder: Path) -> None:
    """Check that an exporter writes what is proven, whole or not at all, and nothing else.

    Args:
        exporter: One that does not force; it has an option `force`.
        folder: An empty one.

    Raises:
        AssertionError: It breaks the contract; says how.
    """
    check_options(exporter, "exporters")
    assert type(exporter).target_version, "an exporter declares the version of its target"
    assert "force" in type(exporter).model_fields, "an exporter has an option `force`"
    forced = type(exporter).model_validate({**exporter.model_dump(mode="json"), "force": True})
    _check_refusal(exporter, folder / "refused")
    _check_replay(forced, folder / "replayed")
    _check_writing(exporter, folder / "written", folder / "again")
    _check_replacing(exporter, forced, folder / "replaced")
    _check_force_is_said(exporter, forced, folder / "forced")
    _check_secrets(forced, folder / "secrets")
    _check_unwritable(exporter, folder / "file")


def _contents(path: Path) -> dict[str, bytes]:
    """Every file at or below a path, hidden ones too."""
    files = [path] if path.is_file() else sorted(found for found in path.rglob("*") if found.is_file())
    return {file.relative_to(path.parent).as_posix(): file.read_bytes() for file in files}


def _check_refusal(exporter: Exporter, folder: Path) -> None:
    for decision in (decision for decision in Decision if decision is not Decision.BETTER):
        said = complaint(UsageError, partial(exporter.export, recommendation(decision), folder))
        assert said, f"{decision} must be refused without force"
        assert decision in said, "the refusal must name the decision"
        assert not _contents(folder), f"refusing {decision} must leave nothing"


def _check_replay(forced: Exporter, folder: Path) -> None:
    replayed = replace(recommendation(), environment={"gpu": "NVIDIA H200 (replay)"})
    said = complaint(UsageError, partial(forced.export, replayed, folder))
    assert said, "what was made on a GPU that plays values back must be refused, with force too"
    assert not _contents(folder), "refusing what was replayed must leave nothing"


def _check_writing(exporter: Exporter, folder: Path, other: Path) -> None:
    path = exporter.export(recommendation(), folder)
    assert path.exists(), f"{path} was returned and does not exist"
    assert path.is_relative_to(folder), f"{path} is not below {folder}"
    written = {name.removeprefix(f"{folder.name}/"): data for name, data in _contents(folder).items()}
    assert written == _contents(path), "an exporter must leave nothing beside its result"
    assert _contents(exporter.export(recommendation(), other)) == written, "same recommendation, same bytes"


def _check_replacing(exporter: Exporter, forced: Exporter, folder: Path) -> None:
    path = exporter.export(recommendation(), folder)
    before, inode = _contents(folder), path.stat().st_ino
    changed = replace(recommendation(), config={**CONFIG, "batch_size": 64})
    said = complaint(UsageError, partial(exporter.export, changed, folder))
    assert said, "what is there must not be overwritten without force"
    assert _contents(folder) == before, "refusing to overwrite must change nothing"
    assert forced.export(changed, folder) == path
    assert _contents(folder) != before, "force replaces"
    assert path.stat().st_ino != inode, "replace atomically: write beside it and rename, never into it"
    assert len(_contents(folder)) == len(before), "replacing must leave nothing beside the result"


def _check_force_is_said(exporter: Exporter, forced: Exporter, folder: Path) -> None:
    proven = _contents(forced.export(recommendation(), folder / "proven"))
    assert proven == _contents(exporter.export(recommendation(), folder / "plain")), "what is proven is not forced"
    for decision in (decision for decision in Decision if decision is not Decision.BETTER):
        written = b"".join(_contents(forced.export(recommendation(decision), folder / decision)).values())
        text = written.decode(errors="replace")
        assert "forced" in text.lower(), f"a forced {decision} must say that it was forced"
        assert decision in text, f"a forced file must name its decision, {decision}"


def _check_secrets(exporter: Exporter, folder: Path) -> None:
    names = ("AUTOTUNE_DB", "AUTOTUNE_SECRET", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "OTEL_EXPORTER_OTLP_HEADERS")
    with _environment({name: f"{SECRET}-{name}" for name in names}):
        written = _contents(exporter.export(recommendation(Decision.SAME), folder))
    leaks = [name for name in names if any(f"{SECRET}-{name}".encode() in data for data in written.values())]
    assert not leaks, f"the environment must not leave the machine: {leaks}"


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _check_unwritable(exporter: Exporter, file: Path) -> None:
    file.write_text("no folder")
    said = complaint(MachineError, partial(exporter.export, recommendation(), file / "below"))
    assert said, "a folder that cannot be written is the machine's fault: MachineError"
    assert str(file) in said, "the error must name the place"
