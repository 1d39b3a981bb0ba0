"""The contract of an exporter, as a check that any test runner can call."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import PurePosixPath

from autotuner.plugins import Exporter
from autotuner.testing.options import check_options
from autotuner.types import Config, Decision, Equivalence, Pair, Recommendation, Tier, Verification

BASELINE: Config = {"batch_size": 8, "dtype": "float32", "compile": "none", "threads": None}
CONFIG: Config = {**BASELINE, "batch_size": 32, "compile": "default"}
SECRET = "canary-4f1d7c0a92be"
_RESERVED = ("evidence.json", "README.md", "rollback")  # of every bundle
_VARIABLES = ("AUTOTUNE_DB", "AUTOTUNE_SECRET", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "OTEL_EXPORTER_OTLP_HEADERS")


def recommendation(decision: Decision = Decision.BETTER) -> Recommendation:
    """A recommendation with its proof, for tests."""
    proof = Verification(
        decision, "1.31 times the throughput", CONFIG, BASELINE, "throughput_tokens_per_s", 1.31, (1.25, 1.38),
        pairs=(Pair(0, 131.0, 100.0), Pair(1, 132.0, 101.0), Pair(2, 130.0, 99.0)), noise_floor_ratio=0.01,
        equivalence=Equivalence(True, Tier.ROUNDING, "off by 1e-7", {"output_error_ratio": 1e-7}),
        metrics={"throughput_tokens_per_s": 131.0}, baseline_metrics={"throughput_tokens_per_s": 100.0},
    )  # fmt: skip
    chosen = CONFIG if decision is Decision.BETTER else BASELINE
    spec = {"name": "conformance", "device": "cuda", "workload": {"kind": "transformers-inference", "task": "generate"}}
    return Recommendation("conformance", chosen, BASELINE, proof, {"gpu": "NVIDIA H200", "torch": "2.13.0"}, spec)


def check_exporter(exporter: Exporter, subject: Recommendation | None = None) -> None:
    """Check that an exporter draws the same twice, drops no parameter in silence, and tells nobody's secrets.

    Args:
        exporter: With any options.
        subject: What it can export, with a configuration that differs from the baseline; ours when left out.

    Raises:
        AssertionError: It breaks the contract; says how.
    """
    check_options(exporter, "exporters")
    assert type(exporter).target_version, "an exporter declares the version of its target"
    assert type(exporter).needs, "an exporter says which studies it can use"
    subject = subject or recommendation()
    _check_names(exporter, subject)
    _check_parameters(exporter, subject)
    _check_secrets(exporter, subject)
    for check in exporter.checks():
        assert check.name, "a check has a name"
        assert check.needs, "a check says what must be installed"
        assert check.argv, "a check is a program"


def _check_names(exporter: Exporter, subject: Recommendation) -> None:
    drawn = exporter.draft(subject.config, subject)
    assert drawn.files, "an exporter draws at least one file"
    assert drawn.use, "an exporter says how its target takes the files"
    assert exporter.draft(subject.config, subject) == drawn, "same recommendation, same bytes"
    for name in drawn.files:
        path = PurePosixPath(name)
        assert not path.is_absolute(), f"{name} must lie in the bundle"
        assert ".." not in path.parts, f"{name} must lie in the bundle"
        assert path.parts[0] not in _RESERVED, f"{name} is a name of the bundle's own"


def _check_parameters(exporter: Exporter, subject: Recommendation) -> None:
    drawn = exporter.draft(subject.config, subject)
    unknown = drawn.left_out.keys() - subject.config.keys()
    assert not unknown, f"left_out names what is no parameter: {sorted(unknown)}"
    changed = [name for name, value in subject.config.items() if value != subject.baseline[name]]
    assert changed, "the configuration must differ from the baseline"
    for name in changed:
        if name not in drawn.left_out:
            config = {**subject.config, name: subject.baseline[name]}
            other = exporter.draft(config, replace(subject, config=config))
            assert other.files != drawn.files, f"{name} changes nothing in the files, and left_out does not name it"


def _check_secrets(exporter: Exporter, subject: Recommendation) -> None:
    with _environment({name: f"{SECRET}-{name}" for name in _VARIABLES}):
        files = exporter.draft(subject.config, subject).files
    leaks = [name for name in _VARIABLES if any(f"{SECRET}-{name}".encode() in data for data in files.values())]
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
