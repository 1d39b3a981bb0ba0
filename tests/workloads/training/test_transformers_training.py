"""A real model in training: every configuration learns the same, and a winner fits with the largest input."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotuner.errors import UsageError
from autotuner.executors.process import ProcessExecutor
from autotuner.monitor.reference import compare
from autotuner.plugins import Job
from autotuner.types import Config, Measurement, MeasurementProtocol
from autotuner.workloads.training.data import Data
from autotuner.workloads.transformers_training import TransformersTraining

LLAMA: Mapping[str, Any] = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 320, "max_position_embeddings": 64,
}  # fmt: skip
BRIEF = MeasurementProtocol(
    block_s=1e-3, warmup_min_steps=1, warmup_min_s=0, warmup_max_s=0, min_blocks=5, min_measure_s=0, max_measure_s=1,
    time_limit_s=120,
)  # fmt: skip


@pytest.fixture
def workload(tmp_path: Path) -> TransformersTraining:
    (tmp_path / "text.txt").write_text("".join(f"The {n}th mile of a long road, told once. " for n in range(100)))
    data = Data(path=str(tmp_path / "text.txt"), sequence_tokens=16)
    return TransformersTraining(config=LLAMA, data=data, global_batch=4, guard_steps=4, learning_rate=1e-2)


def outputs(workload: TransformersTraining, config: Config, reference: Any = None) -> Any:
    with workload.open(config, "cpu") as training:
        training.step(config)
        return training.outputs(config, reference)


@pytest.mark.parametrize(
    "config",
    [
        {"micro_batch": 2}, {"micro_batch": 4, "loss_chunk": 8}, {"activation_checkpointing": True},
        {"attention": "eager"}, {"optimizer_kernel": "fused"}, {"optimizer_kernel": "foreach"},
    ],
)  # fmt: skip
def test_configurations_learn_the_same(workload: TransformersTraining, config: Config) -> None:
    reference = outputs(workload, {})
    found = compare(reference, outputs(workload, config, reference), "float32")
    assert found["loss_error_ratio"] < 1e-4
    assert found["gradient_norm_error_ratio"] < 1e-3
    assert found["loss_band_ratio"] < 0.01


@pytest.mark.parametrize("config", [{"workers": 2}, {"workers": 1, "prefetch_factor": 4}, {"collate": "batch"}])
def test_input_parameters_change_no_bit(workload: TransformersTraining, config: Config) -> None:
    reference = outputs(workload, {})
    assert compare(reference, outputs(workload, config, reference), "float32")["output_identical"] == 1.0


def test_fewer_bits_stay_within_the_band_of_other_seeds(workload: TransformersTraining) -> None:
    reference = outputs(workload, {})
    found = compare(reference, outputs(workload, {"autocast": "bfloat16"}, reference), "bfloat16")
    assert found["output_identical"] == 0.0
    assert found["loss_band_ratio"] < 1.0


def test_another_learning_rate_is_outside(workload: TransformersTraining) -> None:
    reference = outputs(workload, {})
    faster = workload.model_copy(update={"learning_rate": 0.3})
    assert compare(reference, outputs(faster, {}, reference), "float32")["loss_error_ratio"] > 1e-2


def test_largest_step_trains_nothing(workload: TransformersTraining) -> None:
    reference = outputs(workload, {})
    with workload.open({}, "cpu") as training:
        training.step({})
        assert training.worst_step({}).work["samples"] >= 1
        training.step({})
        again = training.outputs({}, reference)
    assert np.array_equal(again["losses"], reference["losses"])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"micro_batch": 3}, "a global batch of 4 is no multiple of 3"),
        ({"micro_batch": 4, "data_parallel": 2}, "no multiple of 8"),
        ({"tensor_parallel": 4}, "does not divide num_key_value_heads"),
        ({"sharding": "zero3"}, "shards over data ranks"),
        ({"persistent_workers": True}, "without workers"),
        ({"compile": "default", "data_parallel": 2, "bucket_bytes": 2**18}, "at least 1 MiB"),
    ],
)
def test_refusals(workload: TransformersTraining, config: Config, words: str) -> None:
    assert words in workload.refuses(config)


def test_missing_data_is_one_line(tmp_path: Path) -> None:
    workload = TransformersTraining(config=LLAMA, data=Data(path=str(tmp_path / "nowhere.txt")))
    with pytest.raises(UsageError, match=r"nowhere\.txt"):
        workload.check()


@pytest.mark.slow
@pytest.mark.parametrize("config", [{}, {"sharding": "zero3"}], ids=["ddp", "zero3"])
def test_two_ranks_learn_what_one_does(workload: TransformersTraining, tmp_path: Path, config: Config) -> None:
    """Real processes: rank 0 measures, both train."""
    path = tmp_path / "reference.npz"
    with ProcessExecutor().open(workload.preload()) as pool:
        one = pool.submit(Job(workload, {}, BRIEF, reference_path=path, writes_reference=True)).result()
        two = pool.submit(Job(workload, {**config, "data_parallel": 2}, BRIEF, reference_path=path)).result()
    assert isinstance(one, Measurement), one
    assert isinstance(two, Measurement), two
    assert two.samples["loss_error_ratio"][0] < 1e-4
    assert two.samples["gradient_norm_error_ratio"][0] < 1e-3
    assert max(two.samples["communication_s"]) > 0
