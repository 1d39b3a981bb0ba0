"""A real model in training: every configuration learns the same, and a winner fits with the largest input."""

import gc
import json
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autotuner.errors import UsageError
from autotuner.executors.process import ProcessExecutor
from autotuner.monitor.reference import compare
from autotuner.plugins import Job, WorkerPool
from autotuner.spec.model import EquivalenceRules
from autotuner.types import Config, Measurement, MeasurementProtocol, Tier
from autotuner.verify.equivalence import judge_outputs
from autotuner.workloads.training import models
from autotuner.workloads.training.data import Data
from autotuner.workloads.training.parallel import Parallel
from autotuner.workloads.transformers_training import TransformersTraining

LLAMA: Mapping[str, Any] = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 320, "max_position_embeddings": 64,
}  # fmt: skip
BRIEF = MeasurementProtocol(
    block_s=1e-3, warmup_min_steps=1, warmup_min_s=0, warmup_max_s=0, min_blocks=5, min_measure_s=0, max_measure_s=1,
    time_limit_s=120,
)  # fmt: skip


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    """One fork server for all: it imports torch and transformers once."""
    with ProcessExecutor().open(TransformersTraining(config=LLAMA, data=Data(kind="synthetic")).preload()) as opened:
        yield opened


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
    """Of the bounds for rounding, and of the band between seeds."""
    reference = outputs(workload, {})
    faster = workload.model_copy(update={"learning_rate": 0.3})
    found = compare(reference, outputs(faster, {}, reference), "float32")
    assert found["loss_error_ratio"] > 1e-2
    assert found["loss_band_ratio"] > 2.0
    assert found["gradient_norm_error_ratio"] > 0.1


def test_dropout_is_judged_by_the_band(workload: TransformersTraining) -> None:
    """Other cuts of the batch draw other masks: no step is the same, and all is as it should be."""
    shape = {**LLAMA, "model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    dropping = workload.model_copy(update={"config": shape, "guard_steps": 10})
    reference = outputs(dropping, {})
    cut = compare(reference, outputs(dropping, {"micro_batch": 4}, reference), "float32")
    assert cut["output_identical"] == 0.0
    assert judge_outputs(EquivalenceRules(), Tier.ROUNDING, cut, {}, 1e-5).kept, cut
    assert compare(reference, outputs(dropping, {"workers": 1}, reference), "float32")["output_identical"] == 1.0
    faster = dropping.model_copy(update={"learning_rate": 0.3})
    other = compare(reference, outputs(faster, {}, reference), "float32")
    assert not judge_outputs(EquivalenceRules(), Tier.ROUNDING, other, {}, 1e-5).kept, other


def test_the_other_seeds_are_trained_one_after_the_other(
    workload: TransformersTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trainings at a time would need twice the memory of one."""
    alive: list[int] = []
    seen: list[int] = []
    load = models.load

    def counted(*arguments: Any) -> Any:
        gc.collect()
        seen.append(len(alive))
        model = load(*arguments)
        alive.append(1)
        weakref.finalize(model, alive.pop)
        return model

    monkeypatch.setattr("autotuner.workloads.training.opening.load", counted)
    outputs(workload, {})
    assert seen == [0, 0, 0, 0]


def test_timed_steps_look_at_no_gradient(workload: TransformersTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first steps are recorded before anything is timed; afterwards it would only take time."""
    norms: list[float] = []
    norm = Parallel.gradient_norm

    def counted(parallel: Parallel) -> float:
        norms.append(norm(parallel))
        return norms[-1]

    monkeypatch.setattr(Parallel, "gradient_norm", counted)
    with workload.open({}, "cpu") as training:
        training.step({})
        assert len(norms) == 1
        reference = training.outputs({}, {})
        for _ in range(3):
            training.step({})
        assert len(norms) == len(reference["losses"][0]) == 4
    with workload.open({}, "cpu") as training:
        for _ in range(3):
            training.step({})
        assert len(norms) == 5
        assert training.outputs({}, {}) == {}, "first steps that nobody recorded cannot be compared"


@pytest.mark.slow
def test_a_loss_in_chunks_is_compiled_too(workload: TransformersTraining) -> None:
    chosen = {"compile": "default", "loss_chunk": 8}
    torch._dynamo.utils.counters.clear()
    with workload.open(chosen, "cpu") as training:
        training.step(chosen)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1


def test_largest_step_trains_nothing(workload: TransformersTraining) -> None:
    reference = outputs(workload, {})
    with workload.open({}, "cpu") as training:
        training.step({})
        assert training.worst_step({}).work["samples"] >= 1
        again = training.outputs({}, reference)
    assert np.array_equal(again["losses"], reference["losses"])


@pytest.mark.parametrize("micro_batch", [2, 4], ids=["accumulated", "halved"])
def test_gradients_of_part_and_whole_are_those_of_smaller_and_larger_batches(
    workload: TransformersTraining, micro_batch: int
) -> None:
    """The first two of four samples are the first batch of two; nothing moves the weights in between."""
    still = workload.model_copy(update={"learning_rate": 1e-30, "optimizer": "sgd", "guard_steps": 8})
    with still.open({"global_batch": 4, "micro_batch": micro_batch}, "cpu") as training:
        found = training.characteristics({})
    small, whole = (outputs(still, {"global_batch": size})["gradient_norms"][0] ** 2 for size in (2, 4))
    assert (found["gradient_small_samples"], found["gradient_global_samples"]) == ([2.0], [4.0])
    assert np.allclose(found["gradient_small_squared"][:4], small[::2], rtol=1e-4)
    assert np.allclose(found["gradient_global_squared"][:8], whole, rtol=1e-4)


def test_gradients_are_looked_at_only_where_the_global_batch_may_change(workload: TransformersTraining) -> None:
    with workload.open({}, "cpu") as training:
        assert training.characteristics({}) == {}
    with workload.open({"global_batch": 1}, "cpu") as training:
        assert training.characteristics({}) == {}, "one sample has no part"


def test_heads_of_a_model_in_a_folder_are_known(workload: TransformersTraining, tmp_path: Path) -> None:
    assert workload.config is not None
    (tmp_path / "config.json").write_text(json.dumps(workload.config))
    there = workload.model_copy(update={"config": None, "model": str(tmp_path)})
    assert "does not divide num_key_value_heads" in there.refuses({"tensor_parallel": 4, "data_parallel": 1})
    nowhere = workload.model_copy(update={"config": None, "model": "hub/id"})
    assert nowhere.refuses({"tensor_parallel": 4, "data_parallel": 1}) == ""


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"micro_batch": 3}, "a global batch of 4 is no multiple of 3"),
        ({"micro_batch": 4, "data_parallel": 2}, "no multiple of 8"),
        ({"micro_batch": 4, "global_batch": 6}, "a global batch of 6 is no multiple of 4"),
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
def test_two_ranks_learn_what_one_does(
    workload: TransformersTraining, pool: WorkerPool, tmp_path: Path, config: Config
) -> None:
    """Real processes: rank 0 measures, both train."""
    path = tmp_path / "reference.npz"
    one = pool.submit(Job(workload, {}, BRIEF, reference_path=path, writes_reference=True)).result()
    two = pool.submit(Job(workload, {**config, "data_parallel": 2}, BRIEF, reference_path=path)).result()
    assert isinstance(one, Measurement), one
    assert isinstance(two, Measurement), two
    assert two.samples["loss_error_ratio"][0] < 1e-4
    assert two.samples["gradient_norm_error_ratio"][0] < 1e-3
    assert max(two.samples["communication_s"]) > 0
    assert "communication_s" not in one.samples


@pytest.mark.slow
@pytest.mark.parametrize("config", [{}, {"sharding": "zero3"}], ids=["ddp", "zero3"])
def test_two_ranks_are_counted_and_asked_for_their_gradients(pool: WorkerPool, tmp_path: Path, config: Config) -> None:
    """Every global batch is the whole data set: whatever came before, its gradient is the same."""
    (tmp_path / "text.txt").write_text("abcdefghijklmno" * 8)  # 8 samples
    still = TransformersTraining(
        config=LLAMA, data=Data(path=str(tmp_path / "text.txt"), sequence_tokens=15), guard_steps=4,
        learning_rate=1e-30, optimizer="sgd",
    )  # fmt: skip
    job = Job(still, {"global_batch": 8}, BRIEF, writes_reference=True, counts=True)
    one = pool.submit(job).result()
    shared = replace(job, config={**job.config, **config, "data_parallel": 2})
    two = pool.submit(shared).result()
    largest = pool.submit(replace(shared, launch="proof", proves_memory=True, counts=False)).result()
    pool.close("proof")
    assert isinstance(one, Measurement), one
    assert isinstance(two, Measurement), two
    assert isinstance(largest, Measurement), largest
    assert largest.samples["peak_memory_bytes"][0] > one.samples["peak_memory_bytes"][0], "that of both ranks"
    norms = [*one.samples["gradient_global_squared"], *two.samples["gradient_global_squared"]]
    assert np.allclose(norms, norms[0], rtol=1e-3)
    assert (one.samples["gradient_small_samples"], two.samples["gradient_small_samples"]) == ((1.0,), (2.0,))
    assert two.telemetry["step_flops"] == pytest.approx(one.telemetry["step_flops"] / 2, rel=0.01)
