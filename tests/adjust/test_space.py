import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.adjust import space as space_module
from autotuner.adjust.space import Space
from autotuner.errors import UsageError
from autotuner.types import config_key

CHAIN = {
    "a": {"bool": True, "default": False},
    "b": {"choices": ["x", "y", "z"], "default": "x", "when": "a"},
    "c": {"int": [1, 3], "default": 1, "when": "b == 'z'"},
}


@st.composite
def spaces(draw):
    """Parameters p0 … pn, the later ones conditional on the earlier, and rules that leave the baseline legal."""
    count = draw(st.integers(1, 4))
    parameters, rules = {}, []
    for i in range(count):
        high = draw(st.integers(1, 4))
        parameters[f"p{i}"] = draw(
            st.sampled_from(
                [
                    {"int": [0, high], "default": draw(st.integers(0, high)), "memory": draw(st.booleans())},
                    {"bool": True, "default": draw(st.booleans()), "live": draw(st.booleans())},
                    {"choices": ["u", "v", None, 3], "default": draw(st.sampled_from(["u", None, 3]))},
                ]
            )
        )
        if i and draw(st.booleans()):
            parameters[f"p{i}"]["when"] = f"p{i - 1} not in (0, 'u')"
        if i and draw(st.booleans()):
            rules.append({"forbid": f"p{i} in (1, 'v') and p{i - 1} in (2, 3)"})
    return parameters, rules


def test_a_chain_of_conditions_counts_behaviours_not_combinations(study):
    space = Space(study(CHAIN))
    assert space.raw_size == 18
    assert [tuple(config.values()) for config in space.configs] == [
        (False, "x", 1), (True, "x", 1), (True, "y", 1), (True, "z", 1), (True, "z", 2), (True, "z", 3),
    ]  # fmt: skip
    assert space.canonical({"a": False, "b": "z", "c": 3}) == {"a": False, "b": "x", "c": 1}


@settings(max_examples=60, deadline=None)
@given(drawn=spaces())
def test_the_space_is_every_canonical_legal_configuration_once(study, drawn):
    parameters, rules = drawn
    spec = study(parameters, rules=rules)
    try:
        space = Space(spec)
    except UsageError:
        assert not spec.legal(spec.baseline)
        return
    raw = [
        dict(zip(spec.parameters, v, strict=True))
        for v in itertools.product(*(p.values for p in spec.parameters.values()))
    ]
    expected = {config_key(c) for c in map(space.canonical, raw) if spec.legal(c)}
    assert sorted(map(config_key, space.configs)) == sorted(expected)
    assert all(space.decode(space.encode(config)) == config and config in space for config in space.configs)
    assert all((config in space) == (config_key(config) in expected) for config in raw)


@settings(max_examples=30, deadline=None)
@given(drawn=spaces(), seed=st.integers(0, 99))
def test_neighbours_and_samples_are_legal(study, drawn, seed):
    parameters, rules = drawn
    spec = study(parameters, rules=rules)
    if not spec.legal(spec.baseline):
        return
    listed = Space(spec)
    sampled = Space(spec)
    sampled.rows = None
    for config in listed.configs[:5]:
        assert all(listed.decode(row) in listed for row in listed.neighbours(config))
    rows = sampled.candidates(random.Random(seed), also=[spec.baseline]).tolist()
    assert len(set(map(tuple, rows))) == len(rows)
    assert all(listed.decode(row) in listed for row in rows)


def test_distance_is_by_index_for_ordered_and_by_equality_for_others(study):
    space = Space(study({
        "batch": {"powers_of_two": [1, 16], "default": 1},
        "dtype": {"choices": ["a", "b", "c"], "default": "a"},
    }))  # fmt: skip
    here = {"batch": 1, "dtype": "a"}

    def distance(one, other):
        return space.shape.distances(space.matrix([space.encode(one)]), space.matrix([space.encode(other)]))[0, 0]

    assert distance(here, here) == 0
    assert distance(here, {"batch": 2, "dtype": "a"}) == pytest.approx(0.25)
    assert distance(here, {"batch": 16, "dtype": "a"}) == pytest.approx(1)
    assert distance(here, {"batch": 1, "dtype": "b"}) == distance(here, {"batch": 1, "dtype": "c"}) == 1


def test_what_the_file_does_not_name_is_not_in_the_space(study):
    space = Space(study({"n": {"choices": [1, 2], "default": 1}, "flag": {"bool": True, "default": False}}))
    assert {"n": 1, "flag": True} in space
    for stranger in ({"n": True, "flag": True}, {"n": 3, "flag": True}, {"n": 1}, {"n": 1, "flag": True, "m": 1}, 7):
        assert stranger not in space
    with pytest.raises(ValueError, match="not a configuration"):
        space.encode({"n": 3, "flag": True})


def test_rules_that_forbid_everything_are_the_users_mistake(study):
    with pytest.raises(UsageError, match="forbid every configuration"):
        Space(study({"n": {"int": [1, 3], "default": 1}}, rules=[{"forbid": "n > 0"}]))


def test_a_rule_that_cannot_be_decided_is_the_users_mistake(study):
    with pytest.raises(UsageError, match="cannot be"):
        Space(study({"n": {"int": [0, 3], "default": 1}}, rules=[{"forbid": "4 // n > 3"}]))


def test_a_space_too_large_to_list_is_sampled(study):
    spec = study({f"p{i}": {"int": [0, 9], "default": 0} for i in range(30)}, rules=[{"forbid": "p0 == 1"}])
    space = Space(spec)
    assert space.size() is None
    assert space.raw_size == 10**30
    assert space.configs == ()
    first, again = (space.candidates(random.Random(1), also=[spec.baseline]).tolist() for _ in range(2))
    assert first == again
    assert len(first) > 500
    assert all(space.decode(row) in space for row in first)


def test_a_long_range_has_few_neighbours(study):
    space = Space(study({"n": {"int": [0, 99_999], "default": 500}, "m": {"int": [0, 9], "default": 0}}))
    values = sorted(space.decode(row)["n"] for row in space.neighbours({"n": 500, "m": 0}))
    assert {499, 501, 498, 502, 500 + 2**15} <= set(values)
    assert len(values) < 3 * math.log2(100_000)


def test_the_enumeration_limit_is_a_matter_of_combinations(study, monkeypatch):
    monkeypatch.setattr(space_module, "ENUMERATION_LIMIT", 8)
    assert Space(study({"n": {"int": [1, 8], "default": 1}})).size() == 8
    assert Space(study({"n": {"int": [1, 9], "default": 1}})).size() is None
