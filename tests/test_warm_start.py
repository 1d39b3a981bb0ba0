"""What won in earlier studies, from a real record, is tried first in the next."""

from datetime import UTC, datetime

import pytest

from autotuner.events import Note
from autotuner.executors.process import ProcessExecutor
from autotuner.monitor.environment import fingerprint
from autotuner.spec.model import StudySpec
from autotuner.store import open_record
from autotuner.testing.replay import Replay
from autotuner.types import Decision, Diagnosis, Measurement, Origin, Trial, Verdict, Verification
from autotuner.warm_start import warm_started

METRIC = "throughput_steps_per_s"
PARAMETERS = {
    "batch": {"powers_of_two": [1, 16], "default": 1},
    "mode": {"choices": ["a", "b", "c"], "default": "a"},
    "flag": {"bool": True, "default": False},
}


def spec_of(parameters=PARAMETERS, metric=METRIC, **sections):
    return StudySpec.model_validate(
        {"name": "s", "workload": Replay(), "executor": ProcessExecutor(), "parameters": parameters,
         "objectives": [{"maximize": metric}], **sections}
    )  # fmt: skip


@pytest.fixture
def record(tmp_path):
    with open_record(f"sqlite:///{tmp_path}/autotune.db") as opened:
        yield opened


@pytest.fixture
def study(record):
    """`study(name, winner)` is one that verified it BETTER, or what else is said."""

    def make(name, winner, decisions=(Decision.BETTER,), model="m", spec=None, **hardware):
        spec = spec or spec_of()
        made = record.create(spec, name)
        environment = fingerprint("cpu", {"model_hash": model}) | hardware
        outcome = Measurement({METRIC: (1.0,)}, 0, 0, 1, {}, environment, datetime(2026, 1, 1, tzinfo=UTC))
        verdict = Verdict({METRIC: 1.0}, {}, Diagnosis("unknown"))
        made.append_trial(Trial(0, spec.baseline, Origin.BASELINE, outcome, verdict))
        for decision in decisions:
            config = {**spec.baseline, **winner}
            made.append_verification(
                Verification(decision, "", config, spec.baseline, spec.objective.metric, 1.2, (1.1, 1.3))
            )

    return make


def first_of(record, spec=None, notes=None):
    spec = warm_started(record, spec or spec_of(), (notes if notes is not None else []).append)
    return [(dict(each.change), each.because) for each in spec.try_first]


def test_the_latest_winners_come_first_and_no_more_than_two(record, study):
    notes = []
    for number, name in enumerate("abc"):
        study(name, {"batch": 2 ** (number + 1)})
    assert first_of(record, notes=notes) == [
        ({"batch": 8}, "it won in study c"),
        ({"batch": 4}, "it won in study b"),
    ]
    assert [type(note) for note in notes] == [Note, Note]
    assert "tries the winner of study c first; start with --cold not to" in str(notes[0])


def test_the_same_model_comes_before_a_later_one(record, study):
    class Model(Replay):
        def identity(self):
            return {"model_hash": "m"}

    study("same", {"batch": 2})
    study("other", {"batch": 4}, model="another")
    spec = spec_of(workload=Model())
    assert [because for _, because in first_of(record, spec)] == ["it won in study same", "it won in study other"]


@pytest.mark.parametrize("hardware", [{"cpu": "another"}, {"cores": "999"}, {"gpu": "a GPU"}])
def test_nothing_is_taken_from_other_hardware(record, study, hardware):
    study("there", {"batch": 2}, **hardware)
    assert first_of(record) == []


@pytest.mark.parametrize("decisions", [(), (Decision.SAME,), (Decision.BETTER, Decision.SAME)])
def test_only_what_was_last_verified_better_counts(record, study, decisions):
    study("there", {"batch": 2}, decisions)
    assert first_of(record) == []


def test_nothing_is_taken_from_a_study_with_another_objective(record, study):
    study("there", {"batch": 2}, spec=spec_of(metric="throughput_tokens_per_s"))
    assert first_of(record) == []


def test_a_winner_is_fitted_into_the_new_space(record, study):
    study("there", {"batch": 16, "mode": "b", "flag": True})
    smaller = {"batch": {"powers_of_two": [1, 8], "default": 1}, "mode": PARAMETERS["mode"]}
    assert first_of(record, spec_of(smaller)) == [({"mode": "b"}, "it won in study there")]
    forbidden = spec_of(rules=[{"forbid": "flag and mode == 'b'"}])
    assert first_of(record, forbidden) == []


def test_what_is_the_baseline_now_or_named_in_the_file_is_not_tried_twice(record, study):
    study("there", {"batch": 2})
    promoted = {**PARAMETERS, "batch": {**PARAMETERS["batch"], "default": 2}}
    assert first_of(record, spec_of(promoted)) == []
    named = spec_of(try_first=[{"change": {"batch": 2}, "because": "I know"}])
    assert first_of(record, named) == [({"batch": 2}, "I know")]


def test_a_cold_start_asks_nobody(record, study):
    study("there", {"batch": 2})
    assert first_of(record, spec_of(warm_start=False)) == []


def test_a_study_that_was_deleted_meanwhile_is_passed_over(record, study, monkeypatch):
    study("a", {"batch": 2})
    names = [*record.names(), "ghost"]
    monkeypatch.setattr(type(record), "names", lambda _: names)
    assert first_of(record) == [({"batch": 2}, "it won in study a")]
