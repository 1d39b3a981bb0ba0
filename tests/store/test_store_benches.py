"""Runs of `autotune bench`: kept apart by file, branch, settings and metric; whole, in order, whatever happens else."""

import sqlite3
from dataclasses import replace

import pytest

from autotuner.errors import MachineError
from autotuner.store import open_record
from autotuner.types import BenchDecision, BenchKey, BenchRun

KEY = BenchKey("bench/loop.yaml", "main", "", "throughput_samples_per_s", True)
RUN = BenchRun(
    key=KEY,
    revision="abc123+",
    environment={"cpu": "œ", "cores": "2"},
    decision=BenchDecision.SAME,
    reason="nothing changed",
    value=101.5,
    launch_values=(101.0, 101.5, 102.0),
    metrics={"latency_p50_s": 0.25},
    violations={"latency_p50_s <= 1 s": -0.75},
    samples={"throughput_samples_per_s": (101.0, 102.0), "setup_s": (1.5,)},
    config={"threads": 2, "cache": None},
    base_revision="def456",
    base_metrics={"latency_p50_s": 0.26},
    gain_ratio=1.01,
    gain_interval=(0.99, 1.03),
    pairs=12,
)
FAILED = replace(
    RUN, decision=BenchDecision.REGRESSION, value=None, launch_values=(), samples={}, failure="crashed: no",
    gain_ratio=None, gain_interval=None,
)  # fmt: skip


def without_time(runs):
    return [replace(run, created_at=None) for run in runs]


def test_a_run_comes_back_equal(path):
    with open_record(str(path)) as record:
        record.benches.append(RUN)
        record.benches.append(FAILED)
    with open_record(str(path)) as record:
        assert without_time(record.benches.runs(KEY, samples=True)) == [RUN, FAILED]
        plain = record.benches.runs(KEY)
    assert plain[0].samples == {}
    assert plain[0].created_at.tzinfo is not None


@pytest.mark.parametrize(
    "other",
    [
        {"file": "bench/other.yaml"}, {"branch": "feature"}, {"settings": "workload.n=2"},
        {"metric": "throughput_tokens_per_s"}, {"maximize": False},
    ],
)  # fmt: skip
def test_another_history_has_none_of_it(record, other):
    record.benches.append(RUN)
    assert record.benches.runs(replace(KEY, **other)) == []
    assert len(record.benches.runs(KEY)) == 1


def test_a_study_that_is_deleted_leaves_them(record, spec):
    record.create(spec, "tiny")
    record.benches.append(RUN)
    record.delete("tiny")
    assert without_time(record.benches.runs(KEY, samples=True)) == [RUN]


def test_a_row_that_nobody_can_read_is_damage(record, path):
    record.benches.append(RUN)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE bench SET body = '{}'")
    with pytest.raises(MachineError, match="table of bench"):
        record.benches.runs(KEY)


def test_an_older_record_takes_runs(path, spec):
    with open_record(str(path)) as record:
        record.create(spec, "tiny")
    with sqlite3.connect(path) as connection:
        for table in ("bench", "journal", "lease"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("UPDATE autotune_revision SET version_num = '0002'")
    with open_record(str(path)) as record:
        assert record.names() == ["tiny"]
        record.benches.append(RUN)
        assert len(record.benches.runs(KEY)) == 1
