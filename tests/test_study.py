"""Whole studies through the programming interface: real processes, a real record, a workload with known truth."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import autotuner
from autotuner import api
from autotuner.adjust.adjuster import propose
from autotuner.adjust.promise import _fitted
from autotuner.adjust.space import Space
from autotuner.errors import UsageError
from autotuner.events import Event, StageStarted, TrialEnded
from autotuner.spec import restore
from autotuner.types import Decision, Failure, FailureKind, Measurement, Origin, config_key

pytestmark = pytest.mark.alone
QUICK = """
protocol:
  {block_s: 0.005, warmup_min_s: 0.01, warmup_max_s: 0.5, min_measure_s: 0.03, max_measure_s: 0.2, time_limit_s: 10}
"""
GAIN = """
workload: {kind: replay, step_s: "0.004 + 0.001 * batch", tokens: "batch"}
parameters:
  batch: {powers_of_two: [1, 16], default: 1, live: true, memory: true}
  mode: {choices: [a, b], default: a}
objectives: [{maximize: throughput_tokens_per_s}]
budget: {trials: 10}
"""

FLAT = GAIN.replace("0.004 + 0.001 * batch", "0.004").replace('tokens: "batch"', 'tokens: "1"').replace(
    "trials: 10", "trials: 6, max_pairs: 6"
)  # fmt: skip
AUTOTUNE = str(Path(sys.executable).with_name("autotune"))


class Study:
    """A folder with a study file in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.db = str(folder / "studies" / "autotune.db")
        self.events: list[Event] = []

    def write(self, text: str) -> Path:
        path = self.folder / "s.yaml"
        path.write_text(text + QUICK)
        return path

    def start(self, text: str, *overrides: str, **more: Any) -> api.StudySummary:
        return api.start(self.write(text), overrides=overrides, db=self.db, listener=self.events.append, **more)

    def trials(self, name: str = "s") -> list[Any]:
        with api.load_study(name, self.db) as study:
            return study.trials()


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


def test_finds_and_verifies_the_better_configuration(study: Study) -> None:
    summary = study.start(GAIN)
    assert summary.decision is Decision.BETTER, summary.reason
    verification = summary.verification
    assert verification is not None
    assert verification.config == {"batch": 16, "mode": "a"}, "mode changes nothing, so it stays as it is"
    low, high = verification.gain_interval
    assert low < 4.5, "16 tokens in 20 ms against 1 in 5 ms, and what sleeping too long adds to both"
    assert high > 3.9
    assert len({pair.launch for pair in verification.pairs}) >= 3
    assert verification.equivalence is not None
    assert verification.equivalence.kept
    assert {each.parameter for each in verification.contributions} <= {"batch"}, "if mode had changed as well"


@pytest.mark.slow
def test_record_holds_every_trial_with_its_raw_samples(study: Study) -> None:
    study.start(GAIN)
    trials = study.trials()
    assert [trial.number for trial in trials] == list(range(10))
    assert trials[0].origin is Origin.BASELINE
    assert len({config_key(trial.config) for trial in trials}) == 10
    for trial in trials:
        assert isinstance(trial.outcome, Measurement)
        assert len(trial.outcome.samples["throughput_tokens_per_s"]) >= 5
        assert trial.outcome.environment["python"]
    ended = [event.trial for event in study.events if isinstance(event, TrialEnded)]
    assert ended == trials


@pytest.mark.slow
def test_nothing_to_gain_is_not_better(study: Study) -> None:
    summary = study.start(FLAT)
    assert summary.decision in (Decision.SAME, Decision.AMBIGUOUS), summary.reason


@pytest.mark.slow
def test_limits_hold_back_the_fastest(study: Study) -> None:
    summary = study.start(GAIN + "limits: [latency_p50_s <= 14 ms]\n")
    assert summary.verification is not None
    assert summary.verification.config["batch"] == 8, "16 takes 20 ms"


def test_several_objectives_are_weighed_and_show_their_front(study: Study) -> None:
    goals = "objectives: [{maximize: throughput_tokens_per_s}, {minimize: latency_p50_s, weight: %s}]"
    text = GAIN.replace("objectives: [{maximize: throughput_tokens_per_s}]", goals % 1)
    verification = study.start(text).verification
    assert verification is not None
    assert verification.decision is Decision.BETTER, verification.reason
    assert verification.config["batch"] == 4, "2.5 times the tokens in 1.6 times the time: 1.56; 1.39 at 2 and at 8"
    assert verification.metric == "score"
    assert verification.metrics["score"] == pytest.approx(verification.gain_ratio, rel=0.1)
    assert {"throughput_tokens_per_s", "latency_p50_s"} <= verification.metrics.keys()
    show = [AUTOTUNE, "study", "show", "s", "--db", study.db]
    front = json.loads(subprocess.run([*show, "--json"], capture_output=True, text=True).stdout)["front"]
    rates = [trial["objectives"]["throughput_tokens_per_s"] for trial in front]
    assert len(front) >= 5
    assert rates == sorted(rates, reverse=True)
    screen = subprocess.run(show, capture_output=True, text=True).stdout
    assert "front: nothing is better in all objectives" in screen
    assert max(map(len, screen.splitlines())) <= 80
    summary = study.start(text.replace("weight: 1", "weight: 4"), name="latency")
    assert summary.decision is not Decision.BETTER, "every token more costs more time than it is worth"


@pytest.mark.slow
def test_other_outputs_are_never_recommended(study: Study) -> None:
    summary = study.start(GAIN.replace('tokens: "batch"', 'tokens: "batch", output_error: "0.5 if_batch"').replace(
        '"0.5 if_batch"', '"(batch > 4) * 0.5"'))  # fmt: skip
    assert summary.verification is not None
    assert summary.verification.config["batch"] == 4
    broken = [trial for trial in study.trials() if trial.verdict and not trial.verdict.feasible]
    assert {trial.config["batch"] for trial in broken} == {8, 16}


@pytest.mark.slow
def test_failures_are_data_and_the_study_goes_on(study: Study) -> None:
    faulty = GAIN.replace(
        'tokens: "batch"',
        'tokens: "batch", fault: {memory_error: "batch == 16", segfault: "mode == \'b\' and batch == 2"}',
    )
    summary = study.start(faulty)
    assert summary.decision is Decision.BETTER
    assert summary.failures["crashed"] == 1
    assert summary.failures["out_of_memory"] >= 1
    assert summary.verification is not None
    assert summary.verification.config["batch"] == 8
    assert (Path(summary.folder) / summary.last_log).is_file()


@pytest.mark.parametrize("fails", ["True", "batch == 1"])
def test_a_failed_baseline_leaves_nothing_to_compare_with(study: Study, fails: str) -> None:
    summary = study.start(GAIN.replace('tokens: "batch"', f'tokens: "batch", fault: {{error: "{fails}"}}'))
    assert summary.decision is Decision.INVALID
    assert summary.reason.startswith("the baseline failed (crashed: RuntimeError: the workload is broken")
    assert summary.trials == 1, "whatever else was tried, nothing could be verified"
    assert (Path(summary.folder) / summary.last_log).is_file()


@pytest.mark.slow
def test_same_name_again_gets_a_number_and_an_explicit_one_is_refused(study: Study) -> None:
    assert study.start(GAIN, "budget.trials=1").name == "s"
    assert study.start(GAIN, "budget.trials=1").name == "s-2"
    with pytest.raises(UsageError, match="already"):
        study.start(GAIN, "budget.trials=1", name="s")


@pytest.mark.slow
def test_interrupted_study_resumes_where_it_stopped(study: Study) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, TrialEnded) and event.trial.number == 3:
            raise KeyboardInterrupt

    children = set(psutil.Process().children(recursive=True))
    with pytest.raises(KeyboardInterrupt):
        api.start(study.write(GAIN), db=study.db, listener=interrupt)
    before = study.trials()
    assert len(before) == 4
    assert set(psutil.Process().children(recursive=True)) <= children
    summary = api.resume("s", db=study.db)
    assert summary.decision is Decision.BETTER
    assert study.trials()[:4] == before
    with pytest.raises(UsageError, match="finished"):
        api.resume("s", db=study.db)


@pytest.mark.slow
def test_a_resumed_study_proposes_what_its_record_says(study: Study) -> None:
    """From the store, by a process that remembers nothing: what comes next is a function of what was recorded."""

    def interrupt(event: Event) -> None:
        if isinstance(event, TrialEnded) and event.trial.number == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.start(study.write(GAIN), db=study.db, listener=interrupt)
    api.resume("s", db=study.db)
    with api.load_study("s", study.db) as opened:
        spec, trials = restore(opened.spec()), opened.trials()
    assert len(trials) == 10
    _fitted.cache_clear()
    for number in range(len(trials)):
        proposal = propose(spec, Space(spec), trials[:number])
        assert proposal is not None
        assert proposal.config == trials[number].config


@pytest.mark.slow
def test_verify_again_confirms_the_claim(study: Study) -> None:
    study.start(GAIN)
    study.events.clear()
    again = api.verify("s", db=study.db, listener=study.events.append)
    assert again.decision is Decision.BETTER
    assert again.reason.startswith("confirmed: claimed ")
    assert any(isinstance(event, StageStarted) and event.stage == "contest" for event in study.events)
    with api.load_study("s", study.db) as opened:
        assert len(opened.verifications()) == 2


@pytest.mark.slow
def test_verify_again_recomputes_a_lost_reference(study: Study) -> None:
    summary = study.start(GAIN)
    (Path(summary.folder) / "reference.npz").unlink()
    assert api.verify("s", db=study.db).decision is Decision.BETTER


def test_parameter_that_the_workload_does_not_know(study: Study) -> None:
    text = """
workload: {kind: transformers-inference, config: {model_type: glm4}}
parameters: {batchsize: {choices: [1, 2], default: 1}}
objectives: [{maximize: throughput_tokens_per_s}]
"""
    with pytest.raises(UsageError, match=r"batchsize.*did you mean batch_size"):
        study.start(text)


def test_programming_interface_is_lazy_and_typed(study: Study) -> None:
    code = "import sys, autotuner; print('torch' in sys.modules, 'sqlalchemy' in sys.modules, autotuner.tune.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "tune"]
    with pytest.raises(AttributeError):
        autotuner.nothing  # noqa: B018


def test_parent_of_a_study_never_imports_torch(study: Study) -> None:
    code = (
        "import sys; from pathlib import Path; from autotuner import api; "
        f"api.start(Path({str(study.write(GAIN))!r}), overrides=['budget.trials=2'], db={study.db!r}); "
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_export_refuses_what_is_not_better(study: Study) -> None:
    study.start(GAIN)
    path, _ = api.export("s", "env", db=study.db)
    assert "AUTOTUNE_BATCH=16" in (path / "s.env").read_text()
    study.start(FLAT, name="flat")
    with pytest.raises(UsageError, match="not"):
        api.export("flat", "json", db=study.db)


def test_delete_removes_rows_and_folder(study: Study) -> None:
    summary = study.start(GAIN, "budget.trials=1")
    assert Path(summary.folder).is_dir()
    api.delete("s", db=study.db)
    assert not Path(summary.folder).exists()
    with pytest.raises(UsageError):
        study.trials()


@pytest.mark.slow
def test_killed_parent_leaves_its_trials_and_no_process(study: Study) -> None:
    path = study.write(GAIN.replace("trials: 10", "trials: 10, minutes: 5"))
    argv = [AUTOTUNE, "study", "start", str(path), "--db", study.db]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("trial 2"):
                break
        below = psutil.Process(process.pid).children(recursive=True)
        assert below, "the fork server and its worker"
        os.kill(process.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(below, timeout=15)
    assert not alive
    finished = len(study.trials())
    assert finished >= 3
    assert api.resume("s", db=study.db).decision is Decision.BETTER
    assert len(study.trials()) == 10


@pytest.mark.slow
def test_two_runs_of_one_study_at_once(study: Study) -> None:
    path = study.write(GAIN.replace("tokens:", "open_s: 0.5, tokens:"))
    argv = [AUTOTUNE, "study", "start", str(path), "--db", study.db]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("trial 0"))
        with pytest.raises(UsageError, match=f"run by process {process.pid}"):
            api.start(path, db=study.db)
        with pytest.raises(UsageError, match="run by process"):
            api.resume("s", db=study.db)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(20) == 130
    assert "autotune study resume s" in rest


@pytest.mark.slow
def test_hung_trial_is_cut_and_told(study: Study) -> None:
    slow = GAIN.replace('tokens: "batch"', 'tokens: "batch", fault: {hang: "batch == 4 and mode == \'a\'"}')
    began_s = time.monotonic()
    study.start(slow, "protocol.time_limit_s=2")
    assert time.monotonic() - began_s < 120
    kinds = [trial.outcome.kind for trial in study.trials() if isinstance(trial.outcome, Failure)]
    assert kinds == [FailureKind.TIMED_OUT]
