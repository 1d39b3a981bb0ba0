"""All trials in a real Optuna storage, read by Optuna itself."""

import random
import sys
from pathlib import Path

import optuna
import pytest

from autotuner.api import export
from autotuner.errors import UsageError
from autotuner.exporting import draw
from autotuner.spec import load
from autotuner.store import open_record
from autotuner.types import Failure

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from test_study_page import INFERENCE, METRIC, fill, trial_of


def stored(folder):
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "optuna.journal")))


@pytest.fixture
def db(tmp_path):
    path = str(tmp_path / "record.db")
    with open_record(path) as record:
        fill(record, 60)
    return path


def test_optuna_finds_every_trial(db, tmp_path):
    folder, _ = export("inference", "optuna", tmp_path / "out", db=db)
    found = optuna.load_study(study_name="inference", storage=stored(folder))
    with open_record(db) as record:
        trials = record.study("inference").trials()
    assert len(found.trials) == len(trials)
    for theirs, ours in zip(found.trials, trials, strict=True):
        assert theirs.params == dict(ours.config)
        if isinstance(ours.outcome, Failure):
            assert theirs.state is optuna.trial.TrialState.FAIL
            assert theirs.user_attrs["failure"] == ours.outcome.kind
        else:
            assert theirs.value == ours.verdict.objectives[METRIC]
    assert found.direction is optuna.study.StudyDirection.MAXIMIZE
    feasible = [t.verdict.objectives[METRIC] for t in trials if t.verdict and t.verdict.feasible]
    assert found.best_value == max(feasible)
    assert max(feasible) < max(t.verdict.objectives[METRIC] for t in trials if t.verdict), "one is fast but breaks it"
    assert found.metric_names == [METRIC]
    assert isinstance(found.trials[0].distributions["batch_size"], optuna.distributions.IntDistribution)


def test_the_same_trials_give_the_same_bytes(db):
    with open_record(db) as record:
        study = record.study("inference")
        first, second = (draw(study, "optuna")[1].files["optuna.journal"] for _ in range(2))
    assert first == second


def test_its_own_plots_draw_what_was_measured(db, tmp_path):
    folder, _ = export("inference", "optuna", tmp_path / "out", db=db)
    found = optuna.load_study(study_name="inference", storage=stored(folder))
    plots = optuna.visualization
    for draw_it in (plots.plot_optimization_history, plots.plot_parallel_coordinate, plots.plot_slice):
        figure = draw_it(found)
        assert figure.data, draw_it.__name__
    kept = [trial for trial in found.trials if trial.user_attrs.get("feasible")]
    assert len(plots.plot_optimization_history(found).data[0].x) == len(kept)
    importances = optuna.importance.get_param_importances(found)
    assert set(importances) <= set(found.trials[0].params)


def test_a_study_that_still_runs_can_be_looked_at_but_not_deployed(tmp_path):
    db = str(tmp_path / "record.db")
    with open_record(db) as record:
        spec = load(INFERENCE)
        record.create(spec, "inference").append_trials([trial_of(0, spec.baseline, random.Random(0))])
    folder, _ = export("inference", "optuna", tmp_path / "out", db=db)
    assert len(optuna.load_study(study_name="inference", storage=stored(folder)).trials) == 1
    with pytest.raises(UsageError, match="has not come to a verdict"):
        export("inference", "json", tmp_path / "json", db=db, force=True)
