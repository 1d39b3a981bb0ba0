"""Which configuration the user means, and one clear line when it is none."""

import textwrap

import pytest

from autotuner import api
from autotuner.errors import UsageError
from autotuner.profiling import choose, split

FILE = textwrap.dedent(
    """
    workload: {kind: replay}
    executor: {kind: inline}
    probes: []
    parameters:
      batch: {powers_of_two: [1, 8], default: 1}
      mode: {choices: [slow, fast, null], default: slow}
      pinned: {bool: true, default: false}
      rate: {choices: [0.5, 1.0], default: 1.0}
      boost: {int: [0, 3], default: 0, when: mode == 'fast'}
      seed: {int: [0, 9], default: 0}
    rules:
      - forbid: batch == 8 and pinned
        because: it does not fit
    objectives: [{maximize: throughput_tokens_per_s}]
    """
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture
def spec(file):
    return api.read_spec(file)


def test_a_parameters_name_chooses_and_everything_else_is_the_files(file):
    settings = ["batch=4", "budget.trials=3", "seed=5", "parameters.batch.default=2", "name=x"]
    assert split(file, settings) == (["budget.trials=3", "parameters.batch.default=2", "name=x"], ["batch=4", "seed=5"])


def test_nothing_chosen_is_the_baseline(spec):
    assert choose(spec, spec.baseline, []) == spec.baseline


def test_values_are_typed_as_the_file_types_them(spec):
    found = choose(spec, spec.baseline, ["batch=4", "mode=null", "pinned=true", "rate=0.5"])
    assert found == {**spec.baseline, "batch": 4, "mode": None, "pinned": True, "rate": 0.5}
    assert [type(found[name]) for name in ("batch", "pinned", "rate")] == [int, bool, float]
    assert choose(spec, spec.baseline, ["mode=fast", "boost=2"])["boost"] == 2


@pytest.mark.parametrize(
    ("settings", "message", "hint"),
    [
        (["batch=3"], "--set batch=3: not a value of batch", "it may be 1, 2, 4, 8"),
        (["batch=true"], "not a value of batch", "1, 2, 4, 8"),
        (["batch=4.0"], "not a value of batch", "1, 2, 4, 8"),
        (["batsh=4"], "has no parameter 'batsh'", "did you mean batch?"),
        (["batch"], "give a value", "--set batch=1"),
        (["batch="], "give a value", "--set batch=1"),
        (["boost=2"], "has no effect: its `when` is false", "mode == 'fast'"),
        (["batch=8", "pinned=true"], "the study forbids batch=8 pinned=true", "because it does not fit"),
    ],
)
def test_a_mistake_is_one_clear_line(spec, settings, message, hint):
    with pytest.raises(UsageError) as caught:
        choose(spec, spec.baseline, settings)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in str(caught.value)
