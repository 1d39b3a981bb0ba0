"""Deviations of outputs: near-ties are no disagreement, real ones are."""

from pathlib import Path

import numpy as np
import pytest

from autotuner.monitor.reference import compare, is_finite, load, save

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (200, 1000)).astype(np.float32)


def test_round_trip(tmp_path: Path) -> None:
    save(tmp_path / "deep" / "reference.npz", {"logits": LOGITS, "_dtype": np.array("float16")})
    loaded = load(tmp_path / "deep" / "reference.npz")
    assert np.array_equal(loaded["logits"], LOGITS)
    assert str(loaded["_dtype"]) == "float16"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["reference.npz"]


def test_identical() -> None:
    found = compare({"logits": LOGITS}, {"logits": LOGITS}, "float32")
    assert found["output_identical"] == 1.0
    assert found["output_error_ratio"] == 0.0
    assert found["output_kl_nats"] == 0.0
    assert found["top1_agreement_ratio"] == found["top5_agreement_ratio"] == 1.0


def test_kl_matches_its_definition() -> None:
    other = LOGITS + RNG.normal(0, 0.5, LOGITS.shape)
    p, q = (np.exp(x.astype(np.float64)) / np.exp(x.astype(np.float64)).sum(-1, keepdims=True) for x in (LOGITS, other))
    expected = float((p * np.log(p / q)).sum(-1).mean())
    assert compare({"logits": LOGITS}, {"logits": other}, "float32")["output_kl_nats"] == pytest.approx(expected)


def test_rounding_to_bfloat16_flips_only_near_ties() -> None:
    rounded = (LOGITS.view(np.uint32) + 0x8000 & 0xFFFF0000).view(np.float32)
    assert (np.argmax(rounded, -1) != np.argmax(LOGITS, -1)).any(), "the example must hold a near-tie"
    found = compare({"logits": LOGITS}, {"logits": rounded}, "bfloat16")
    assert found["top1_agreement_ratio"] == 1.0
    assert found["top5_agreement_ratio"] == 1.0


def test_other_model_disagrees() -> None:
    found = compare({"logits": LOGITS}, {"logits": RNG.normal(0, 3, LOGITS.shape)}, "bfloat16")
    assert found["top1_agreement_ratio"] < 0.1
    assert found["top5_agreement_ratio"] < 0.2
    assert found["output_kl_nats"] > 1


def test_worst_vector_counts() -> None:
    base = np.ones((3, 4))
    other = base.copy()
    other[1] *= 1.5
    assert compare({"embedding": base}, {"embedding": other}, "float32")["output_error_ratio"] == pytest.approx(0.5)


def test_nothing_to_compare() -> None:
    assert compare({"_dtype": np.array("float32")}, {"_dtype": np.array("float32")}, "float32") == {}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_finite(bad: float) -> None:
    assert is_finite({"a": np.ones(3), "_tokens": np.array([1])})
    assert not is_finite({"a": np.array([1.0, bad])})
