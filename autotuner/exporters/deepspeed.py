"""For DeepSpeed: a configuration of its own, and one for the Trainer, which fills in what is "auto".

DeepSpeed takes an unknown key at the top in silence, so only keys that it knows are written here.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from autotuner.errors import UsageError
from autotuner.exporters.batches import batches, ranks
from autotuner.exporters.documents import as_json
from autotuner.exporters.precision import Precision, precision
from autotuner.exporters.settings import Settings, filled, workload
from autotuner.plugins import Exporter
from autotuner.types import Check, Config, Draft, Recommendation, Value

_HALF = {"bf16": "bfloat16", "fp16": "float16"}
_STAGES = {"none": 0, "zero1": 1, "zero2": 2, "zero3": 3}
_FLOAT32_BYTES, _HALF_BYTES = 4, 2
_OWN = (  # of zero_optimization, that a study of one's own may use by their names
    "stage", "overlap_comm", "contiguous_gradients", "reduce_scatter", "reduce_bucket_size", "allgather_partitions",
    "allgather_bucket_size", "round_robin_gradients", "sub_group_size", "stage3_max_live_parameters",
    "stage3_max_reuse_distance", "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold",
    "zero_hpz_partition_size", "zero_quantized_weights", "zero_quantized_gradients",
)  # fmt: skip
_WHERE = {
    "workers": "it is your DataLoader's: see the target transformers",
    "threads": "it is OMP_NUM_THREADS: see the targets torchrun and env",
    "attention": "it is from_pretrained's: see the target transformers",
    "data_parallel": "a launcher's: see the target torchrun",
    "nproc_per_node": "a launcher's: see the target torchrun",
    "num_processes": "a launcher's: see the target torchrun",
    "global_batch": "it says too little without a micro batch",
    "train_batch_size": "it says too little without a micro batch",
    "compile": "it is torch.compile of your model, or engine.compile()",
}
_CHECK = """
import json, sys
import deepspeed.comm as dist
from deepspeed.runtime.config import DeepSpeedConfig
found = json.load(open(sys.argv[1] + "/ds_config.json"))
cut = found.get("train_micro_batch_size_per_gpu", 1) * found.get("gradient_accumulation_steps", 1)
dist.get_rank = lambda *_: 0  # as if the ranks were there
dist.get_world_size = lambda *_: found.get("train_batch_size", cut) // cut
DeepSpeedConfig(found)
"""


class DeepspeedExporter(Exporter):
    """DeepSpeed's configuration: its own, and the Trainer's with "auto"."""

    kind: Literal["deepspeed"] = "deepspeed"
    target_version: ClassVar[str] = "deepspeed 0.19"
    needs: ClassVar[str] = "a study of a training: batches, autocast, sharding, buckets"

    def draft(self, config: Config, recommendation: Recommendation) -> Draft:
        """`ds_config.json` for `deepspeed.initialize`, `ds_config_trainer.json` for the Trainer."""
        settings, processes = Settings(config), ranks(Settings(config))
        cut = batches(settings, workload(recommendation), processes.data)
        format_ = precision(settings)
        native: dict[str, Any] = filled({
            "train_batch_size": cut.total,
            "train_micro_batch_size_per_gpu": cut.micro,
            "gradient_accumulation_steps": cut.accumulated,
        })  # fmt: skip
        trainer: dict[str, Any] = dict.fromkeys(native, "auto")
        if format_ is not None:
            native["torch_autocast"] = _autocast(format_)
            trainer |= {name: {"enabled": "auto"} for name in ("bf16", "fp16")}
        sharding = _sharding(settings, _HALF_BYTES if format_ in _HALF else _FLOAT32_BYTES)
        shared: dict[str, Any] = {"zero_optimization": sharding} if sharding else {}
        if settings.take("tensor_parallel") is not None and processes.tensor > 1:
            shared["tensor_parallel"] = {"autotp_size": processes.tensor}
        if not native and not shared:
            raise UsageError(
                f"nothing that {recommendation.study} tunes is DeepSpeed's",
                "it knows micro_batch, autocast, sharding, bucket_bytes, overlap, and the keys of zero_optimization",
            )
        files = {"ds_config.json": as_json(native | shared), "ds_config_trainer.json": as_json(trainer | shared)}
        use = "`deepspeed.initialize(config='{bundle}/ds_config.json', …)`, or, for the Trainer, "
        use += "`TrainingArguments(deepspeed='{bundle}/ds_config_trainer.json', …)` with the target transformers"
        if format_ in _HALF:
            use += ". The Trainer keeps the weights themselves in that format: it has no key for torch_autocast"
        return Draft(files, use, settings.left_out("DeepSpeed's configuration has no such key", _WHERE))

    def checks(self) -> Sequence[Check]:
        """DeepSpeed's own reader."""
        return (Check("DeepSpeedConfig", "deepspeed", ("{python}", "-c", _CHECK, "{bundle}")),)


def _autocast(format_: Precision) -> dict[str, Value]:
    """The section that leaves the weights in float32; `bf16` and `fp16` would cast them."""
    return {"enabled": True, "dtype": _HALF[format_]} if format_ in _HALF else {"enabled": False}


def _sharding(settings: Settings, element_bytes: int) -> dict[str, Value]:
    """The section `zero_optimization`; buckets are counted in elements there."""
    found: dict[str, Value] = {}
    stage = settings.take_as(_STAGES, "sharding")
    if stage is not None:
        found["stage"] = stage
    overlap = settings.take("overlap")
    if overlap is not None:
        found["overlap_comm"] = overlap
    bucket_bytes = settings.take("bucket_bytes")
    if bucket_bytes is not None:
        found["reduce_bucket_size"] = int(bucket_bytes) // element_bytes
    return found | settings.take_all(_OWN)
