"""Relief of a real model: less demand while it lasts, and the same model afterwards."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from autotuner.monitor.recorder import Recorder
from autotuner.monitor.torch.counting import count_step
from autotuner.plugins import Job
from autotuner.types import Binding, MeasurementProtocol
from autotuner.workloads.transformers_inference import TransformersInference
from autotuner.workloads.transformers_relief import equal_layers, shared_layers, weight_bytes

GLM4: Mapping[str, Any] = {
    "model_type": "glm4", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 64, "pad_token_id": 0,
}  # fmt: skip
BERT: Mapping[str, Any] = {
    "model_type": "bert", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "vocab_size": 128,
}  # fmt: skip
DECODER = TransformersInference(config=GLM4, prompt_tokens=8, new_tokens=4, probe_requests=2)
ENCODER = TransformersInference(config=BERT, task="encode", prompt_tokens=8, probe_requests=2)


def flops_of(opened, config):
    return count_step(lambda: opened.step(config), "cpu", 2**20)["step_flops"]


@pytest.mark.parametrize("workload", [DECODER, ENCODER], ids=lambda workload: workload.task)
def test_memory_is_relieved_by_layers_that_share_their_weights(workload):
    with workload.open({}, "cpu") as opened:
        model = opened._model
        layers = equal_layers(model)
        assert len(layers) == workload.config["num_hidden_layers"]
        before = [parameter.data_ptr() for parameter in model.parameters()]
        with shared_layers(model, cache_bytes=2**30) as left:
            assert left == pytest.approx(
                1 - len(layers) * weight_bytes(layers[0]) / weight_bytes(model) * 1.0, abs=0.01
            )
            assert {
                layer.state_dict()[name].data_ptr() for layer in layers for name in list(layer.state_dict())[:1]
            } == {next(iter(layers[0].state_dict().values())).data_ptr()}
            relieved_flops = flops_of(opened, {})
        assert [parameter.data_ptr() for parameter in model.parameters()] == before
        assert relieved_flops == flops_of(opened, {}), "the same arithmetic"


def test_under_relief_a_step_fetches_fewer_bytes():
    """The cache holds one layer and the rest of the model, but not all layers."""
    with DECODER.open({}, "cpu") as opened:
        model = opened._model
        cache_bytes = 5 * weight_bytes(equal_layers(model)[0])
        plain = count_step(lambda: opened.step({}), "cpu", cache_bytes // 2)
        with shared_layers(model, cache_bytes):
            relieved = count_step(lambda: opened.step({}), "cpu", cache_bytes // 2)
    assert relieved["step_bytes"] < 0.7 * plain["step_bytes"]
    assert relieved["step_operations"] == plain["step_operations"]


def test_a_layer_that_does_not_fit_the_cache_relieves_nothing():
    with DECODER.open({}, "cpu") as opened, shared_layers(opened._model, cache_bytes=2**10) as left:
        assert left == 1.0


def test_arithmetic_is_relieved_by_one_request():
    config = {"batch_size": 4}
    with DECODER.open(config, "cpu") as opened:
        before = flops_of(opened, config)
        with opened.relieve("compute", config) as left:
            assert left == 0.25
            assert flops_of(opened, config) == pytest.approx(before / 4)
        assert opened.step(config).work["requests"] == 4


def test_the_recorder_counts_what_was_left():
    protocol = MeasurementProtocol(block_s=1e-3, warmup_min_s=0, warmup_max_s=0.1, min_measure_s=0, max_measure_s=1)
    with Recorder() as recorder:
        outcome = recorder.measure(Job(DECODER, {"batch_size": 4}, protocol, relieves="compute"))
    assert outcome.telemetry["relief_left_ratio"] == 0.25
    assert outcome.telemetry["relief_left_flops_ratio"] == pytest.approx(0.25)


def test_what_cannot_be_relieved_is_none():
    with DECODER.open({}, "cpu") as opened:
        assert opened.relieve(Binding.INPUT, {}) is None
        assert opened.relieve(Binding.HOST_LAUNCH, {}) is None
        compiled = {"compile": "default", "kv_cache": "static"}
        assert opened.relieve(Binding.COMPUTE, compiled) is None, "another batch would be another program"


def test_a_model_without_a_stack_has_nothing_to_share():
    assert equal_layers(torch.nn.Linear(4, 4)) == []
    assert equal_layers(torch.nn.ModuleList([torch.nn.Linear(4, 4), torch.nn.Linear(4, 5)])) == []
