import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.adjust.adjuster import Proposal
from autotuner.adjust.pruning import worth_trying
from autotuner.adjust.space import Space
from autotuner.types import FailureKind, Origin

PARAMETERS = {
    "batch": {"powers_of_two": [1, 16], "default": 1, "memory": True},
    "beams": {"choices": [4, 1, 2], "default": 1, "memory": True},  # not in order: the values decide
    "cache": {"bool": True, "default": False, "memory": True},
    "dtype": {"choices": ["a", "b"], "default": "a", "memory": True},  # text has no size
    "threads": {"int": [1, 3], "default": 1},
}


def left(space, trials):
    return [space.decode(row) for row in space.rows[worth_trying(space, trials, space.rows)].tolist()]


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_out_of_memory_rules_out_what_is_larger_and_nothing_else(study, try_out, data):
    spec = study(PARAMETERS)
    space = Space(spec)
    failed = [space.configs[i] for i in data.draw(st.lists(st.integers(0, len(space.configs) - 1), max_size=4))]
    trials = [
        try_out(spec, i, Proposal(c, Origin.SAMPLER, ""), lambda _: FailureKind.OUT_OF_MEMORY)
        for i, c in enumerate(failed)
    ]
    sizes = ("batch", "beams", "cache")

    def needs_more(config, other):
        equal = all(config[name] == other[name] for name in ("dtype", "threads"))
        return equal and all(config[name] >= other[name] for name in sizes)

    expected = [config for config in space.configs if not any(needs_more(config, other) for other in failed)]
    assert left(space, trials) == expected


@pytest.mark.parametrize("kind", [kind for kind in FailureKind if kind is not FailureKind.OUT_OF_MEMORY])
def test_other_failures_rule_out_themselves_only(study, try_out, kind):
    spec = study(PARAMETERS)
    space = Space(spec)
    trial = try_out(spec, 0, Proposal(spec.baseline, Origin.BASELINE, ""), lambda _: kind)
    assert left(space, [trial]) == [config for config in space.configs if config != spec.baseline]


def test_rows_may_come_in_any_order(study, try_out):
    spec = study(PARAMETERS)
    space = Space(spec)
    trials = [try_out(spec, 0, Proposal(spec.baseline, Origin.BASELINE, ""), lambda _: 1.0)]
    backwards = space.rows[::-1]
    assert np.array_equal(worth_trying(space, trials, backwards), worth_trying(space, trials, space.rows)[::-1])
