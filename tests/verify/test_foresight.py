"""Forecasts of comparisons, held against what a window does: it ends when it has enough, or at its longest."""

from datetime import UTC, datetime

import pytest

from autotuner.types import Diagnosis, Measurement, MeasurementProtocol, Origin, Trial, Verdict
from autotuner.verify.foresight import comparison_s


def trial(block_s, blocks=5, setup_s=0.0):
    samples = {"block_step_s": (block_s,) * blocks}
    seen = Measurement(samples, setup_s, 0.0, block_s * blocks, {}, {}, datetime.now(UTC))
    return Trial(0, {"a": 1}, Origin.BASELINE, seen, Verdict({}, {}, Diagnosis("unknown")))


@pytest.mark.parametrize(
    ("block_s", "protocol", "window_s"),
    [
        (0.1, {}, 1.0 + 0.05),  # at least min_measure_s
        (0.5, {}, 6 * 0.5 + 0.25),
        (3.0, {}, 8.0 + 1.5),  # never longer than max_measure_s, but for the last block
        (3.0, {"min_blocks": 3}, 8.0 + 1.5),
        (0.5, {"min_blocks": 10}, 5.0 + 0.25),
        (20.0, {}, 20.0 + 10.0),  # a block is never cut
    ],
)
def test_a_window_is_as_long_as_its_protocol_lets_it_be(block_s, protocol, window_s):
    given = MeasurementProtocol(min_measure_s=1.0, max_measure_s=8.0, **protocol)
    one = trial(block_s, setup_s=2.0)
    assert comparison_s(given, (one,), [one], rounds=3) == pytest.approx(2.0 + 3 * window_s)
