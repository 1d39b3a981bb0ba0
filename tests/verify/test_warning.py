"""A candidate that learns otherwise is never recommended without a word."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from autotuner.executors.inline import InlineExecutor
from autotuner.spec.model import Objective, StudySpec
from autotuner.spec.parameters import Parameter
from autotuner.types import Failure, FailureKind, Measurement
from autotuner.verify.warning import warn
from autotuner.workloads.training.data import Data
from autotuner.workloads.transformers_training import TransformersTraining

NOISE_SCALE = 40.0


def spec(**more):
    workload = TransformersTraining(config={"model_type": "llama"}, data=Data(path="text.txt"))
    parameters = {
        "global_batch": Parameter(choices=(8, 16, 64), default=16),
        "workers": Parameter(choices=(0, 1), default=0),
    }
    return StudySpec(
        name="free", workload=workload, executor=InlineExecutor(), parameters=parameters | more,
        objectives=(Objective(maximize="throughput_samples_per_s"),),
    )  # fmt: skip


def baseline(steps=60, small=4, whole=16, noise=NOISE_SCALE):
    """Squared norms of a gradient of length 1 under a noise of known size."""
    rng, width = np.random.default_rng(1), 100
    truth = np.ones(width) / 10
    parts = truth + rng.normal(size=(steps, whole // small, width)) * (noise / width / small) ** 0.5
    samples = {
        "gradient_small_samples": (float(small),), "gradient_global_samples": (float(whole),),
        "gradient_small_squared": tuple((parts[:, 0] ** 2).sum(axis=-1)),
        "gradient_global_squared": tuple((parts.mean(axis=1) ** 2).sum(axis=-1)),
    }  # fmt: skip
    return Measurement(samples, 1, 1, 1, {}, {}, datetime.now(UTC), False)


def test_what_only_moves_how_it_is_computed_needs_no_word():
    assert warn(spec(), {"global_batch": 16, "workers": 1}, baseline()) == ""


def test_another_global_batch_is_said_with_the_noise_scale():
    text = warn(spec(), {"global_batch": 64, "workers": 1}, baseline())
    assert text.startswith("global_batch 16 → 64: it computes something else")
    assert "learning rate" in text
    number = float(text.split("about ")[1].split(" samples")[0])
    assert number == pytest.approx(NOISE_SCALE, rel=0.5)


def test_noise_that_hides_the_gradient_is_said():
    assert "too few" in warn(spec(), {"global_batch": 64, "workers": 0}, baseline(steps=6))
    text = warn(spec(), {"global_batch": 64, "workers": 0}, baseline(steps=24, noise=4000.0))
    assert "too noisy" in text
    assert 16 < float(text.split("at least ")[1].split(" samples")[0].replace(",", "")) < 4000
    seen = baseline()
    assert "not known" in warn(spec(), {"global_batch": 64, "workers": 0}, replace(seen, samples={}))


def test_a_parameter_that_the_file_frees_is_said_too():
    freed = spec(quality=Parameter(choices=(1, 2), default=1, tier="free"))
    config = {"global_batch": 16, "workers": 0, "quality": 2}
    assert warn(freed, config, Failure(FailureKind.CRASHED, "", "")).startswith("quality 1 → 2: it computes something")
