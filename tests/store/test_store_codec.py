"""What goes into the record comes out of it, to the last bit."""

import math
import struct
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.store import codec
from autotuner.types import (
    Binding,
    Contribution,
    Decision,
    Diagnosis,
    Equivalence,
    Estimate,
    Measurement,
    Pair,
    Tier,
    Verdict,
    Verification,
)

names = st.text(max_size=20)
metrics = st.dictionaries(names, st.floats(), max_size=4)
samples = st.dictionaries(names, st.lists(st.floats(), max_size=50).map(tuple), max_size=4)


def bits(values):
    return struct.pack(f"<{len(values)}d", *values)


@given(samples)
@settings(max_examples=50, deadline=None)
def test_samples_keep_every_bit(given_samples):
    back = codec.unpack_samples(codec.pack_samples(given_samples))
    assert list(back) == list(given_samples)
    assert all(bits(back[name]) == bits(values) for name, values in given_samples.items())


def test_repetitive_samples_are_compressed_and_random_ones_are_not_inflated():
    assert len(codec.pack_samples({"a": (1.0,) * 1000})) < 100
    blob = codec.pack_samples({"a": tuple(math.sin(i) for i in range(100))})
    assert len(blob) <= 1 + 4 + len('{"a":100}') + 800


@pytest.mark.parametrize("cut", [0, 1, 4, 8, 20])
def test_a_cut_blob_is_an_error_and_never_fewer_samples(cut):
    blob = codec.pack_samples({"a": (1.0, math.pi, 3.0)})
    with pytest.raises((ValueError, struct.error)):
        codec.unpack_samples(blob[:cut])


@given(metrics, metrics, samples, st.floats(), st.text(max_size=50))
@settings(max_examples=50, deadline=None)
def test_outcomes_and_verdicts_come_back(telemetry, violations, raw, number, text):
    zone = timezone(timedelta(hours=5, minutes=30))
    measurement = Measurement(raw, number, 1.0, 2.0, telemetry, {"gpu": text}, datetime.now(zone), True, text)
    back = codec.decode_outcome(
        codec.encode_outcome(measurement), codec.pack_samples(raw), codec.decode_object(codec.encode({"gpu": text}))
    )
    assert repr(back) == repr(measurement).replace(repr(measurement.started_at), repr(back.started_at))
    assert back.started_at == measurement.started_at
    assert back.started_at.tzinfo is UTC
    verdict = Verdict(
        {text: number},
        violations,
        Diagnosis(
            Binding.COMPUTE, text, telemetry, number, True, {text: Estimate(number, number, number)}, (text,), (text,)
        ),
        number,
    )
    assert repr(codec.decode_verdict(codec.encode(verdict))) == repr(verdict)


@pytest.mark.parametrize("equivalence", [None, Equivalence(False, Tier.PRECISION, "KL", {"output_kl_nats": math.inf})])
def test_a_verification_comes_back(equivalence):
    verification = Verification(
        Decision.AMBIGUOUS, "r", {"b": 1, "a": None}, {"a": True}, "latency_p50_s", 1.25, (0.0, math.inf),
        pairs=(Pair(0, 1.0, 2.0), Pair(1, 3.0, 4.0, contended=True)), equivalence=equivalence,
        contributions=(Contribution("a", 1.1, (0.9, 1.3), 6),), violations={"x": -1.0},
    )  # fmt: skip
    back = codec.decode_verification(codec.encode(verification))
    assert back == verification
    assert isinstance(back.gain_interval, tuple)
    assert isinstance(back.contributions[0].gain_interval, tuple)
    assert back.decision is Decision.AMBIGUOUS
    assert list(back.config) == ["b", "a"]


def test_a_time_without_zone_is_refused():
    with pytest.raises(ValueError, match="no time zone"):
        codec.encode({"at": datetime(2026, 1, 1)})


def test_nan_has_no_order_and_infinity_has():
    assert codec.orderable(math.nan) is None
    assert codec.orderable(None) is None
    assert codec.orderable(math.inf) == math.inf


def test_what_has_no_json_is_refused():
    with pytest.raises(TypeError, match="cannot be recorded"):
        codec.encode({"x": object()})
