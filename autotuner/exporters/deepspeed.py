"""For DeepSpeed: a configuration of its own, and one for the Trainer, which fills in what is "auto".

DeepSpeed takes an unknown key at the top in silence, so only keys that it knows are written here.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from autotuner.errors import UsageError
from autotuner.exporters.batches import batches, ranks
from autotuner.exporters.documents import as_json
from autotuner.exporters.settings import Settings, workload
from autotuner.plugins import Exporter
from autotuner.types import Check, Config, Draft, Recommendation, Value

_STAGES = {"none": 0, "zero1": 1, "zero2": 2, "zero3": 3}
_FLOAT32_BYTES, _BFLOAT16_BYTES = 4, 2
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
        settings = Settings(config)
        processes = ranks(settings)
        cut = batches(settings, workload(recommendation), processes.data)
        autocast = settings.take("autocast", "precision")
        sharding = _sharding(settings, _BFLOAT16_BYTES if autocast == "bfloat16" else _FLOAT32_BYTES)
        if cut.micro is None and not sharding and autocast is None:
            raise UsageError(
                f"nothing that {recommendation.study} tunes is DeepSpeed's",
                "it knows micro_batch, autocast, sharding, bucket_bytes, overlap, and the keys of zero_optimization",
            )
        native: dict[str, Any] = {}
        if cut.micro and cut.accumulated:
            native["train_batch_size"] = cut.micro * cut.accumulated * processes.data
            native["train_micro_batch_size_per_gpu"] = cut.micro
            native["gradient_accumulation_steps"] = cut.accumulated
        elif cut.micro:
            native["train_micro_batch_size_per_gpu"] = cut.micro
        trainer: dict[str, Any] = dict.fromkeys(native, "auto")
        for name, format_ in (("bf16", "bfloat16"), ("fp16", "float16")) if autocast is not None else ():
            native[name], trainer[name] = {"enabled": autocast == format_}, {"enabled": "auto"}
        shared: dict[str, Any] = {"zero_optimization": sharding} if sharding else {}
        if processes.tensor > 1:
            shared["tensor_parallel"] = {"autotp_size": processes.tensor}
        files = {"ds_config.json": as_json(native | shared), "ds_config_trainer.json": as_json(trainer | shared)}
        use = "`deepspeed.initialize(config='{bundle}/ds_config.json', …)`, or, for the Trainer, "
        use += "`TrainingArguments(deepspeed='{bundle}/ds_config_trainer.json', …)` with the target transformers"
        return Draft(files, use, settings.left_out("DeepSpeed's configuration has no such key", _WHERE))

    def checks(self) -> Sequence[Check]:
        """DeepSpeed's own reader."""
        return (Check("DeepSpeedConfig", "deepspeed", ("{python}", "-c", _CHECK, "{bundle}")),)


def _sharding(settings: Settings, element_bytes: int) -> dict[str, Value]:
    """The section `zero_optimization`; buckets are counted in elements there."""
    found: dict[str, Value] = {}
    sharding = settings.take("sharding")
    if sharding is not None:
        found["stage"] = _STAGES[str(sharding)]
    overlap = settings.take("overlap")
    if overlap is not None:
        found["overlap_comm"] = overlap
    bucket_bytes = settings.take("bucket_bytes")
    if bucket_bytes is not None:
        found["reduce_bucket_size"] = int(bucket_bytes) // element_bytes
    return found | settings.take_all(_OWN)
