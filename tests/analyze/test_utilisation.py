import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.analyze.utilisation import GpuUtilisation, explain_utilisation, saturation

RATIOS = st.none() | st.floats(0, 1)


@pytest.mark.parametrize(
    ("seen", "answer", "words"),
    [
        ({}, "not known", ("No utilisation",)),
        ({"busy_ratio": 0.99}, "not known", ("busy 99% of the time", "does not say")),
        ({"busy_ratio": 0.4, "tensor_ratio": 0.2}, "idle", ("busy 40%", "the other 60% it waited")),
        ({"busy_ratio": 0.99, "tensor_ratio": 0.06, "dram_ratio": 0.2}, "not saturated",
         ("busy 99% of the time, but used its tensor cores 6% and its memory 20%", "busy, not saturated")),
        ({"busy_ratio": 1.0, "tensor_ratio": 0.06, "dram_ratio": 0.85}, "memory", ("memory bandwidth was at",)),
        ({"busy_ratio": 1.0, "tensor_ratio": 0.7}, "tensor cores", ("its tensor cores were at",)),
        ({"busy_ratio": 1.0, "tensor_ratio": 0.0, "arithmetic_ratio": 0.8, "dram_ratio": 0.1}, "arithmetic units",
         ("arithmetic units were at",)),
        ({"busy_ratio": 1.0, "tensor_ratio": 0.1}, "not known", ("used its tensor cores 10%", "does not say")),
        ({"busy_ratio": 1.0, "sm_ratio": 0.2, "tensor_ratio": 0.1, "dram_ratio": 0.1}, "not saturated",
         ("only 20% of its SMs", "too few blocks")),
        ({"sm_ratio": 0.9, "occupancy_ratio": 0.1, "tensor_ratio": 0.1, "dram_ratio": 0.1}, "not saturated",
         ("held 10% of the warps",)),
    ],
)  # fmt: skip
def test_what_the_numbers_say(seen, answer, words):
    numbers = GpuUtilisation(**seen)
    assert saturation(numbers) == answer
    assert all(word in explain_utilisation(numbers) for word in words), explain_utilisation(numbers)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(RATIOS, RATIOS, RATIOS)
def test_busy_sms_and_warps_never_mean_saturated(busy, sm, warps):
    """A kernel that waits for memory with one warp keeps all three high."""
    numbers = GpuUtilisation(busy, sm, warps)
    assert saturation(numbers) in ("not known", "idle")
    idle_parts = GpuUtilisation(busy, sm, warps, tensor_ratio=0.05, arithmetic_ratio=0.05, dram_ratio=0.05)
    assert saturation(idle_parts) in ("not saturated", "idle")
    assert "at the practical limit" not in explain_utilisation(idle_parts)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.builds(GpuUtilisation, RATIOS, RATIOS, RATIOS, RATIOS, RATIOS, RATIOS))
def test_every_mixture_has_one_clean_sentence(numbers):
    sentence = explain_utilisation(numbers)
    assert sentence.endswith(".")
    assert sentence.count(". ") == 0
    assert not any(flaw in sentence for flaw in ("None", "  ", " ,", ",,", "The GPU:"))


def test_percent_is_refused():
    with pytest.raises(ValueError, match=r"busy_ratio = 99 is not in \[0, 1\]"):
        GpuUtilisation(busy_ratio=99)
