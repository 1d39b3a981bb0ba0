"""Studies come, go, and are found by name; a trial read back is the trial that was appended."""

import json
import math
import os
import signal
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from autotuner.errors import MachineError, UsageError
from autotuner.store import open_record
from autotuner.types import Decision, Failure, FailureKind, Origin, Trial, Verification

VERIFICATION = Verification(Decision.SAME, "no difference", {"a": 1}, {"a": 2}, "latency_p50_s", 1.01, (0.98, 1.04))


def test_trials_come_back_equal_and_in_order(study, tools):
    trials = [tools.trial(number) for number in range(30)]
    for trial in trials:
        study.append_trial(trial)
    assert study.trials() == trials
    assert study.trial(13) == trials[13]
    assert study.last(3) == trials[-3:]
    assert study.count() == 30
    assert list(study.trial(0).config) == list(trials[0].config)
    assert type(study.trial(0).config["compile"]) is bool


def test_a_reopened_record_has_everything(path, spec, tools):
    with open_record(str(path)) as record:
        created = record.create(spec, "tiny")
        created.append_trials(tools.trial(number) for number in range(12))
    with open_record(f"sqlite:///{path}") as record:
        study = record.study("tiny")
        assert study.trials() == [tools.trial(number) for number in range(12)]
        assert study.spec() == spec.dump()
        assert list(study.spec()["parameters"]) == list(spec.parameters)
        assert study.created_at == created.created_at
        assert abs(study.created_at - datetime.now(UTC)) < timedelta(hours=1)


def test_without_samples_everything_else_is_there(study, tools):
    study.append_trials(tools.trial(number) for number in range(10))
    for trial in study.trials(samples=False):
        full = tools.trial(trial.number)
        if not isinstance(full.outcome, Failure):
            full = replace(full, outcome=replace(full.outcome, samples={}))
        assert trial == full


def test_failures_are_counted_by_kind(study, tools):
    study.append_trials(tools.trial(number) for number in range(30))
    assert study.failures() == {"crashed": 3, "out_of_memory": 3}
    objectives = [trial.verdict and next(iter(trial.verdict.objectives.values())) for trial in study.trials()]
    assert study.values() == objectives
    assert study.values().count(None) == 6


@pytest.mark.parametrize("maximize", [True, False])
def test_best_is_feasible_and_sorted(study, tools, maximize):
    trials = [tools.trial(number) for number in range(60)]
    study.append_trials(trials)
    feasible = [trial for trial in trials if trial.verdict and trial.verdict.feasible]
    sign = -1 if maximize else 1
    feasible.sort(key=lambda trial: (sign * trial.verdict.objectives["throughput_tokens_per_s"], trial.number))
    assert study.best(7, maximize) == feasible[:7]


def test_nan_is_never_best_and_infinity_survives(study, tools):
    for number, value in enumerate([math.nan, 1.0, math.inf, -math.inf]):
        trial = tools.trial(0)
        verdict = replace(trial.verdict, objectives={"throughput_tokens_per_s": value})
        study.append_trial(replace(trial, number=number, verdict=verdict))
    assert [trial.number for trial in study.best(9, maximize=True)] == [2, 1, 3]
    assert [trial.number for trial in study.best(9, maximize=False)] == [3, 1, 2]
    assert math.isnan(study.trial(0).verdict.objectives["throughput_tokens_per_s"])


def test_many_trials_are_all_appended_or_none(study, tools):
    with pytest.raises(MachineError, match="another process"):
        study.append_trials([tools.trial(0), tools.trial(1), tools.trial(1)])
    assert study.count() == 0
    assert study.trials() == []


def test_a_number_is_written_once(study, tools):
    study.append_trial(tools.trial(3))
    with pytest.raises(MachineError, match="same number"):
        study.append_trial(tools.trial(3))
    assert study.trials() == [tools.trial(3)]


def test_a_measurement_without_verdict_is_refused(study, tools):
    with pytest.raises(ValueError, match="verdict"):
        study.append_trial(replace(tools.trial(0), verdict=None))
    with pytest.raises(ValueError, match="verdict"):
        study.append_trial(replace(tools.trial(4), verdict=tools.trial(0).verdict))
    assert study.count() == 0


def test_an_unknown_number_is_the_users_mistake(study):
    with pytest.raises(UsageError, match="no trial 7"):
        study.trial(7)


def test_verifications_and_events_come_back_in_order(study):
    other = replace(VERIFICATION, decision=Decision.BETTER, gain_ratio=1.5)
    study.append_verification(VERIFICATION)
    study.append_verification(other)
    study.append_event("started")
    study.append_event("note", {"text": "œ\n", "n": [1, None], "x": math.inf})
    assert [verification for _, verification in study.verifications()] == [VERIFICATION, other]
    assert [(kind, payload) for _, kind, payload in study.events()] == [
        ("started", {}),
        ("note", {"text": "œ\n", "n": [1, None], "x": math.inf}),
    ]
    assert [kind for _, kind, _ in study.events("note")] == ["note"]
    assert all(at.tzinfo is UTC for at, _, _ in study.events())


def test_overview_says_what_became_of_each_study(record, spec, tools):
    record.create(spec, "empty")
    study = record.create(spec, "tiny")
    study.append_trials(tools.trial(number) for number in range(10))
    for kind in ("started", "finished", "note"):
        study.append_event(kind)
    study.append_verification(replace(VERIFICATION, decision=Decision.WORSE, gain_ratio=math.nan))
    study.append_verification(VERIFICATION)
    empty, tiny = record.overview()
    assert (empty.name, empty.trials, empty.state, empty.decision, empty.gain_ratio) == (
        "empty", 0, "unfinished", None, None,
    )  # fmt: skip
    assert (tiny.trials, tiny.failures, tiny.state, tiny.decision, tiny.gain_ratio) == (
        10, 2, "finished", Decision.SAME, 1.01,
    )  # fmt: skip
    assert (tiny.metric, tiny.maximize, tiny.created_at) == ("throughput_tokens_per_s", True, study.created_at)
    study.append_event("resumed")
    assert record.overview()[1].state == "unfinished"


def test_names_are_unique_and_guessed(record, spec):
    record.create(spec, "first")
    record.create(spec, "second")
    assert record.names() == ["first", "second"]
    with pytest.raises(UsageError, match="already"):
        record.create(spec, "first")
    with pytest.raises(UsageError, match="did you mean first"):
        record.study("frist")
    with pytest.raises(UsageError, match="known: first, second"):
        record.study("zzz")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".", "..", ".hidden", "-x", "a b", "x\n", "ü", "a" * 65])
def test_what_could_leave_the_folder_is_no_name(record, spec, name):
    for refuse in (lambda: record.create(spec, name), lambda: record.folder(name), record.lock(name).__enter__):
        with pytest.raises(UsageError, match="no name for a study"):
            refuse()
    assert record.names() == []


def test_the_folder_is_beside_the_file(record, path):
    assert record.folder("tiny") == path.parent / "tiny"
    assert record.url == f"sqlite:///{path}"


def test_delete_removes_a_study_and_nothing_else(record, path, spec, tools):
    keep, gone = record.create(spec, "keep"), record.create(spec, "gone")
    trials = [tools.trial(number) for number in range(5)]
    foreign = replace(trials[0], outcome=replace(trials[0].outcome, environment={"host": "secret"}))
    for study in (keep, gone):
        study.append_trials(trials)
        study.append_event("started")
        study.append_verification(VERIFICATION)
    gone.append_trial(replace(foreign, number=5))
    record.delete("gone")
    assert record.names() == ["keep"]
    assert keep.trials() == trials
    assert keep.spec() == spec.dump()
    with sqlite3.connect(path) as connection:
        for table in ("trial", "sample", "event", "verification"):
            assert connection.execute(f"SELECT count(DISTINCT study_id) FROM {table}").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM document").fetchone() == (2,)
    with pytest.raises(UsageError, match="no study 'gone'"):
        record.delete("gone")
    with pytest.raises(MachineError, match="deleted"):
        gone.append_trial(trials[0])
    record.create(spec, "again")
    with pytest.raises(MachineError, match="deleted"):  # and never lands in a younger study
        gone.append_event("started")


def test_texts_that_repeat_are_stored_once(record, path, spec, tools):
    for name in ("a", "b"):
        record.create(spec, name).append_trials(tools.trial(number) for number in range(20))
    with sqlite3.connect(path) as connection:
        bodies = [json.loads(body) for (body,) in connection.execute("SELECT body FROM document")]
    assert sorted("gpu" in body for body in bodies) == [False, True]


def test_every_row_says_what_made_it(study, path, tools):
    study.append_trial(tools.trial(0))
    study.append_event("started")
    with sqlite3.connect(path) as connection:
        for table in ("study", "trial", "event"):
            created_at, code = connection.execute(f"SELECT created_at, code_version FROM {table}").fetchone()
            assert datetime.fromisoformat(created_at).tzinfo is not None
            assert code
        columns = connection.execute(
            "SELECT origin, feasible, contended, value, length(config_hash), environment_hash FROM trial"
        ).fetchone()
    assert columns[:5] == ("baseline", 1, 1, 0.0, 32)
    assert len(columns[5]) == 32


def test_a_failure_needs_no_environment(study):
    trial = Trial(0, {}, Origin.HINT, Failure(FailureKind.TIMED_OUT, "600 s"), None)
    study.append_trial(trial)
    assert study.trials() == [trial]
    assert study.best(3, maximize=True) == []


def test_a_running_study_is_locked_and_a_dead_process_frees_it(path, spec, tools):
    with open_record(str(path)) as record:
        record.create(spec, "tiny")
    ready = os.pipe()

    def run() -> None:
        with open_record(str(path)) as record, record.lock("tiny"):
            os.write(ready[1], b".")
            signal.pause()

    pid = tools.elsewhere(run)
    os.read(ready[0], 1)
    with open_record(str(path)) as record:
        try:
            with pytest.raises(UsageError, match=f"run by process {pid}"), record.lock("tiny"):
                pass
            with pytest.raises(UsageError, match=f"run by process {pid}"):
                record.delete("tiny")
        finally:
            os.kill(pid, signal.SIGKILL)
            tools.wait(pid)
        with record.lock("tiny"):
            assert (record.folder("tiny") / ".lock").read_text() == f"{os.getpid()}\n"
        record.delete("tiny")
    for end in ready:
        os.close(end)


def test_two_processes_that_create_one_name_get_one_study(tmp_path, spec, tools):
    for attempt in range(4):
        path = tmp_path / f"{attempt}.db"  # both create the file, too

        def create(path=path) -> None:
            with open_record(str(path)) as record:
                try:
                    record.create(spec, "tiny")
                except UsageError as error:
                    os._exit(7 if "already" in error.message else 1)

        pids = [tools.elsewhere(create), tools.elsewhere(create)]
        assert sorted(tools.wait(pid) for pid in pids) == [0, 7]
        with open_record(str(path)) as record:
            assert record.names() == ["tiny"]


def test_writers_in_several_processes_wait_for_each_other(path, spec, tools):
    names = ["a", "b", "c"]
    with open_record(str(path)) as record:
        for name in names:
            record.create(spec, name)

    def append(name: str) -> None:
        with open_record(str(path)) as record:
            for number in range(25):
                record.study(name).append_trial(tools.trial(number))

    pids = [tools.elsewhere(lambda name=name: append(name)) for name in names]
    assert [tools.wait(pid) for pid in pids] == [0, 0, 0]
    with open_record(str(path)) as record:
        assert [record.study(name).count() for name in names] == [25, 25, 25]
