"""The diagnosis leads the search, and ends it where nothing can be faster."""

from dataclasses import replace

import pytest

from autotuner.adjust.adjuster import propose
from autotuner.adjust.ending import at_ceiling
from autotuner.adjust.hints import hints
from autotuner.adjust.space import Space
from autotuner.types import Binding, Diagnosis, Origin, Verdict

PARAMETERS = {
    "batch_size": {"powers_of_two": [1, 64], "default": 1, "live": True, "acts_on": ["host_launch"]},
    "dtype": {"choices": ["a", "b", "c"], "default": "a", "acts_on": ["memory_bandwidth", "compute"]},
    "workers": {"int": [0, 15], "default": 0, "acts_on": ["input"]},
    "mystery": {"choices": ["x", "y"], "default": "x"},
}
BUDGET = {"budget": {"trials": 30, "minutes": 1}}


def diagnosed(trial, **more):
    return replace(trial, verdict=replace(trial.verdict, diagnosis=Diagnosis(**more)))


@pytest.fixture
def spec(study):
    return study(PARAMETERS, **BUDGET)


@pytest.fixture
def first(spec, try_out):
    return try_out(spec, 0, propose(spec, Space(spec), ()), lambda config: 10.0)


def opening(spec, trial, count, try_out):
    """The first proposals after a baseline, while none of them is better."""
    trials, moved = [trial], []
    for number in range(1, count + 1):
        proposal = propose(spec, Space(spec), trials)
        moved.append((next(n for n, v in proposal.config.items() if v != spec.baseline[n]), proposal.origin))
        trials.append(try_out(spec, number, proposal, lambda config: 5.0))
    return moved


def test_what_acts_on_the_bound_resource_is_moved_first(spec, first, try_out):
    input_bound = diagnosed(
        first, binding=Binding.INPUT, try_next=("workers", "mystery"), cannot_help=("batch_size", "dtype")
    )
    moved = opening(spec, input_bound, 4, try_out)
    assert [name for name, _ in moved[:2]] == ["workers", "mystery"]
    assert [origin for _, origin in moved] == [Origin.HINT] * 2 + [Origin.SAMPLER] * 2


def test_single_moves_take_no_more_than_a_quarter(study, first, try_out):
    spec = study(PARAMETERS, budget={"trials": 8})
    host_bound = diagnosed(first, binding=Binding.HOST_LAUNCH, try_next=tuple(PARAMETERS))
    assert [origin for _, origin in opening(spec, host_bound, 4, try_out)] == [Origin.HINT] * 2 + [Origin.SAMPLER] * 2


def test_without_a_diagnosis_nothing_is_moved_alone(spec, first, try_out):
    moved = opening(spec, diagnosed(first, binding=Binding.UNKNOWN), 3, try_out)
    assert {origin for _, origin in moved} == {Origin.SAMPLER}


def test_a_proposal_says_why(spec, first):
    bound = diagnosed(first, binding=Binding.HOST_LAUNCH, try_next=("batch_size",))
    assert propose(spec, Space(spec), [bound]).reason == "the baseline with batch_size = 8, for host launch binds"


def test_steps_from_the_best_leave_out_what_cannot_help(study, try_out):
    spec = study({**PARAMETERS, "dtype": {**PARAMETERS["dtype"], "choices": list("abcdefghij")}}, **BUDGET)
    first = try_out(spec, 0, propose(spec, Space(spec), ()), lambda config: 10.0)
    trials = [diagnosed(first, binding=Binding.COMPUTE, try_next=("dtype",), cannot_help=("batch_size", "workers"))]
    steps = []
    for number in range(1, 21):
        proposal = propose(spec, Space(spec), trials)
        trials.append(try_out(spec, number, proposal, lambda config: 5.0))
        if "the steps from trial 0" in proposal.reason:
            steps.append(proposal.config["dtype"] != "a" or proposal.config["mystery"] != "x")
    assert len(steps) >= 2
    assert all(steps)


def at_the_roof(trial, **more):
    known = {"binding": Binding.COMPUTE, "confirmed": True, "ceiling_ratio": 0.95, "try_next": ("dtype",)}
    return diagnosed(trial, **(known | more))


def all_formats(spec, first, try_out):
    """The baseline at the roof, and every other number format tried and slower."""
    space = Space(spec)
    trials = [at_the_roof(first)]
    for value in ("b", "c"):
        config = space.move(spec.baseline, "dtype", value)
        proposal = replace(propose(spec, space, trials), config=config)
        trials.append(try_out(spec, len(trials), proposal, lambda config: 10.0 - 5.0 * spec.objective.sign))
    return trials


def test_the_search_ends_at_the_roof_when_nothing_left_asks_for_less(spec, first, try_out):
    trials = all_formats(spec, first, try_out)
    reason = at_ceiling(spec, Space(spec), trials)
    assert reason == "trial 0 stands at 95% of this machine's compute, and nothing left needs less of it"
    assert at_ceiling(spec, Space(spec), trials[:2]) == "", "one format was not tried"


@pytest.mark.parametrize(
    "doubt",
    [
        {"confirmed": False},
        {"ceiling_ratio": 0.7},
        {"ceiling_ratio": 1.5},
        {"ceiling_ratio": None},
        {"binding": Binding.HOST_LAUNCH},
        {"try_next": ("dtype", "mystery")},
    ],
)
def test_with_any_doubt_the_search_goes_on(spec, first, try_out, doubt):
    trials = all_formats(spec, first, try_out)
    assert at_ceiling(spec, Space(spec), [at_the_roof(first, **doubt), *trials[1:]]) == ""


def test_for_a_latency_nothing_is_excluded_and_nothing_ends_early(study, first, try_out):
    """At the machine's ceiling a smaller batch answers sooner all the same."""
    spec = study(PARAMETERS, **BUDGET, objectives=[{"minimize": "latency_mean_s"}])
    first = try_out(spec, 0, propose(spec, Space(spec), ()), lambda config: 10.0)
    trials = all_formats(spec, first, try_out)
    assert at_ceiling(spec, Space(spec), trials) == ""
    bound = diagnosed(first, binding=Binding.COMPUTE, try_next=("dtype",), cannot_help=("batch_size",))
    assert (hints(spec, [bound]).first, hints(spec, [bound]).last) == (("dtype",), ())


def test_before_anything_was_measured_there_is_no_hint(spec, first):
    assert hints(spec, ()).binding == Binding.UNKNOWN
    assert at_ceiling(spec, Space(spec), ()) == ""
    broken = replace(first, verdict=Verdict({"throughput_steps_per_s": 1.0}, {"x": 0.5}, Diagnosis(Binding.COMPUTE)))
    assert hints(spec, [broken]).first == ()
