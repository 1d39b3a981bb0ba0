"""For `accelerate launch --config_file FILE`: processes, precision, sharding and compilation."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from autotuner.exporters.batches import ranks
from autotuner.exporters.documents import as_yaml
from autotuner.exporters.precision import precision
from autotuner.exporters.settings import Settings, mention
from autotuner.plugins import Exporter
from autotuner.types import Check, Config, Draft, Recommendation

_FSDP = {"none": "", "zero2": "gradients", "zero3": "all"}  # what is sharded
_WHERE = {
    "micro_batch": "it is your training script's: see the target transformers",
    "per_device_train_batch_size": "it is your training script's: see the target transformers",
    "workers": "it is your DataLoader's: see the target transformers",
    "num_workers": "it is your DataLoader's: see the target transformers",
    "threads": "it is OMP_NUM_THREADS: see the targets torchrun and env",
    "bucket_bytes": "it is DistributedDataParallelKwargs(bucket_cap_mb=…), in your script",
    "attention": "it is from_pretrained's: see the target transformers",
}
_LOAD = (
    "import sys; from accelerate.commands.config import load_config_from_file as load; "
    "load(sys.argv[1] + '/default_config.yaml')"
)


class AccelerateExporter(Exporter):
    """The configuration file of `accelerate launch`."""

    kind: Literal["accelerate"] = "accelerate"
    target_version: ClassVar[str] = "accelerate 1.15 (`accelerate launch --config_file`)"
    needs: ClassVar[str] = "a study of a training: ranks, sharding, autocast, compile"

    def draft(self, config: Config, recommendation: Recommendation) -> Draft:
        """`default_config.yaml`."""
        settings, cpu = Settings(config), recommendation.spec.get("device") == "cpu"
        processes, sharding = ranks(settings), settings.take_as(_FSDP, "sharding")
        document: dict[str, Any] = {
            "compute_environment": "LOCAL_MACHINE",
            "distributed_type": _kind(processes.total, sharding, cpu=cpu),
            "num_machines": 1,
            "num_processes": processes.total,
            "machine_rank": 0,
            "main_training_function": "main",
            "use_cpu": cpu,
        }
        format_ = precision(settings, fp8=True)
        if format_ is not None:
            document["mixed_precision"] = format_
        if sharding:
            document["fsdp_config"] = {
                "fsdp_version": 2,
                "fsdp_reshard_after_forward": sharding == "all",
                "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
                "fsdp_activation_checkpointing": bool(settings.take("activation_checkpointing")),
            }
        if processes.tensor > 1:
            document["parallelism_config"] = {
                "parallelism_config_dp_shard_size": processes.data if sharding else 1,
                "parallelism_config_dp_replicate_size": 1 if sharding else processes.data,
                "parallelism_config_tp_size": processes.tensor,
            }
        mode = settings.take("compile")
        if mode not in (None, "none", False):
            document["dynamo_config"] = {"dynamo_backend": "INDUCTOR"}
            if isinstance(mode, str):
                document["dynamo_config"]["dynamo_mode"] = mode
        text = as_yaml(document, comments=[mention(recommendation)])
        use = "`accelerate launch --config_file {bundle}/default_config.yaml train.py`"
        return Draft({"default_config.yaml": text}, use, settings.left_out("accelerate's file has no such key", _WHERE))

    def checks(self) -> Sequence[Check]:
        """Accelerate's own loader, which knows its keys."""
        return (Check("accelerate's load_config_from_file", "accelerate", ("{python}", "-c", _LOAD, "{bundle}")),)


def _kind(processes: int, sharding: str | None, *, cpu: bool) -> str:
    if sharding:
        return "FSDP"
    if processes == 1:
        return "NO"
    return "MULTI_CPU" if cpu else "MULTI_GPU"
