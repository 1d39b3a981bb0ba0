"""For transformers: TrainingArguments, GenerationConfig, ContinuousBatchingConfig, and what goes to from_pretrained."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from autotuner.errors import UsageError
from autotuner.exporters.batches import Batches, batches, ranks
from autotuner.exporters.command_line import by_line, command_line, options, typed
from autotuner.exporters.documents import as_json, as_script
from autotuner.exporters.precision import precision
from autotuner.exporters.settings import Settings, filled, mention, workload
from autotuner.plugins import Exporter
from autotuner.types import Check, Config, Draft, Recommendation

_ARGUMENTS = (  # of TrainingArguments, that a study of one's own may use by their names
    "per_device_eval_batch_size", "activation_checkpointing", "bf16", "fp16", "tf32", "torch_compile",
    "torch_compile_backend", "torch_compile_mode", "optim", "use_liger_kernel", "dataloader_num_workers",
    "dataloader_pin_memory", "dataloader_persistent_workers", "dataloader_prefetch_factor", "ddp_bucket_cap_mb",
    "ddp_static_graph", "torch_empty_cache_steps",
)  # fmt: skip
_SERVING = {
    "cb-block-size": "page_size", "cb-num-blocks": "num_blocks", "cb-max-batch-tokens": "max_batch_tokens",
    "cb-max-memory-percent": "max_memory_percent", "cb-use-cuda-graph": "use_cuda_graph",
}  # fmt: skip
_WHERE = {
    "threads": "it is torch.set_num_threads, or OMP_NUM_THREADS: see the targets torchrun, env and python",
    "data_parallel": "a launcher's: see the targets torchrun and accelerate",
    "tensor_parallel": "a launcher's: see the targets torchrun and accelerate",
    "nproc_per_node": "a launcher's: see the targets torchrun and accelerate",
    "num_processes": "a launcher's: see the targets torchrun and accelerate",
    "prefetch_factor": "without workers a DataLoader takes none",
    "persistent_workers": "without workers a DataLoader takes none",
    "sharding": "see the targets accelerate and deepspeed",
    "loss_chunk": "the Trainer computes all logits at once; see use_liger_kernel",
    "collate": "it is your data collator's",
    "memory_format": "it is your model's: model.to(memory_format=torch.channels_last)",
    "overlap": "DDP in the Trainer always overlaps",
}
_PARSE = (
    "import sys; from transformers import HfArgumentParser, TrainingArguments; "
    "HfArgumentParser(TrainingArguments).parse_json_file(sys.argv[1] + '/training_args.json')"
)
_GENERATE = "import sys; from transformers import GenerationConfig as G; G.from_pretrained(sys.argv[1]).validate()"
_COMPILE = (
    "import json, sys; from transformers import CompileConfig as C; "
    "C(**json.load(open(sys.argv[1] + '/compile_config.json')))"
)
_SERVE = (
    "import json, sys; from transformers import ContinuousBatchingConfig as C; "
    "C(**json.load(open(sys.argv[1] + '/continuous_batching.json')))"
)


class TransformersExporter(Exporter):
    """TrainingArguments, or GenerationConfig and the arguments of from_pretrained, or ContinuousBatchingConfig."""

    kind: Literal["transformers"] = "transformers"
    names: Mapping[str, str] = Field(default_factory=dict, description="{parameter: name of a training argument}.")
    target_version: ClassVar[str] = "transformers 5.23"
    needs: ClassVar[str] = "a study of transformers inference, training or `transformers serve`, or of a Trainer"

    def draft(self, config: Config, recommendation: Recommendation) -> Draft:
        """What the study's kind of work reads."""
        section = workload(recommendation)
        match section.get("kind"):
            case "transformers-inference":
                return _inference(Settings(config, self.names), section)
            case "server" | "command" if (drawn := _serving(config, recommendation)) is not None:
                return drawn
            case _:
                return self._training(config, recommendation, section)

    def checks(self) -> Sequence[Check]:
        """Transformers' own parser and classes."""
        return tuple(
            Check(name, "transformers", ("{python}", "-c", _if_there(file, program), "{bundle}"))
            for name, file, program in (
                ("HfArgumentParser(TrainingArguments)", "training_args.json", _PARSE),
                ("GenerationConfig", "generation_config.json", _GENERATE),
                ("CompileConfig", "compile_config.json", _COMPILE),
                ("ContinuousBatchingConfig", "continuous_batching.json", _SERVE),
            )
        )

    def _training(self, config: Config, recommendation: Recommendation, section: Mapping[str, Any]) -> Draft:
        settings = Settings(config, self.names)
        cut = batches(settings, section, ranks(Settings(config, self.names)).data)
        arguments = _training_arguments(settings, section, cut)
        arguments |= settings.take_all(_ARGUMENTS)
        model = filled({"attn_implementation": settings.take("attention", "attn_implementation")})
        if not arguments:
            raise UsageError(
                f"no parameter of {recommendation.study} is a training argument",
                "say which are: --set names.my_batch=per_device_train_batch_size",
            )
        if arguments.get("bf16") and recommendation.spec.get("device") == "cpu":
            arguments["use_cpu"] = True  # else transformers refuses it where there is no GPU
        files = {"training_args.json": as_json(arguments)}
        use = "`HfArgumentParser(TrainingArguments).parse_json_file('{bundle}/training_args.json')`"
        if model:
            files["from_pretrained.json"] = as_json(model)
            use += "; `from_pretrained(model, **json.load(open('{bundle}/from_pretrained.json')))`"
        return Draft(files, use, settings.left_out("TrainingArguments has no such argument", _WHERE))


def _training_arguments(settings: Settings, section: Mapping[str, Any], cut: Batches) -> dict[str, Any]:
    workers = settings.take("workers", "num_workers", "dataloader_num_workers")
    autocast = precision(settings)
    non_blocking = settings.take("non_blocking")
    bucket_bytes = settings.take("bucket_bytes")
    arguments = {
        "per_device_train_batch_size": cut.micro,
        "gradient_accumulation_steps": cut.accumulated,
        "dataloader_num_workers": workers,
        "dataloader_prefetch_factor": settings.take("prefetch_factor") if workers else None,
        "dataloader_persistent_workers": settings.take("persistent_workers") if workers else None,
        "dataloader_pin_memory": settings.take("pin_memory"),
        "bf16": None if autocast is None else autocast == "bf16",
        "fp16": True if autocast == "fp16" else None,
        "tf32": settings.take("tf32"),
        "activation_checkpointing": settings.take("activation_checkpointing"),
        "accelerator_config": None if non_blocking is None else {"non_blocking": non_blocking},
        "ddp_bucket_cap_mb": None if bucket_bytes is None else max(1, round(int(bucket_bytes) / 2**20)),
        "optim": _optimizer(settings, section),
    }
    return filled(arguments | _compilation(settings))


def _optimizer(settings: Settings, section: Mapping[str, Any]) -> str | None:
    """Its name there; of SGD there is one kernel only."""
    if section.get("optimizer", "adamw") == "sgd":
        return "sgd"
    kernel = settings.take("optimizer_kernel")
    return None if kernel is None else "adamw_torch_fused" if kernel == "fused" else "adamw_torch"


def _compilation(settings: Settings) -> dict[str, Any]:
    mode = settings.take("compile")
    if mode is None:
        return {}
    if isinstance(mode, bool) or mode == "none":
        return {"torch_compile": mode is True}
    return {"torch_compile": True, "torch_compile_mode": mode}


def _inference(settings: Settings, section: Mapping[str, Any]) -> Draft:
    loading = filled({"dtype": settings.take("dtype"), "attn_implementation": settings.take("attention")})
    cache, mode = settings.take("kv_cache"), settings.take("compile")
    files = {"from_pretrained.json": as_json(loading)}
    use = "`AutoModelForCausalLM.from_pretrained(model, **json.load(open('{bundle}/from_pretrained.json')))`"
    generation: dict[str, Any] = {}
    if section.get("task", "generate") == "generate":
        generation = filled({"cache_implementation": "static" if cache == "static" else None})
        if mode in (None, "none"):
            generation["disable_compile"] = True  # else a static cache compiles on a GPU, which nobody measured
        files["generation_config.json"] = as_json(generation)
        use += "; `model.generation_config.update(**json.load(open('{bundle}/generation_config.json')))`"
        if mode not in (None, "none"):
            files["compile_config.json"] = as_json({"mode": mode})  # no text can stand for it in the file above
            use += (
                "; `model.generate(…, compile_config=CompileConfig(**json.load(open('{bundle}/compile_config.json'))))`"
            )
    batch_size = settings.take("batch_size")
    if batch_size is not None:
        files["pipeline.json"] = as_json({"batch_size": batch_size})
        use += "; `pipeline(task, model=model, **json.load(open('{bundle}/pipeline.json')))`"
    left_out = settings.left_out("no argument of transformers says it", _WHERE)
    if section.get("task", "generate") != "generate" and mode not in (None, "none"):
        left_out["compile"] = f"it is yours: model.forward = torch.compile(model.forward, mode={mode!r})"
    return Draft(files, use, left_out)


def _serving(config: Config, recommendation: Recommendation) -> Draft | None:
    """Of `transformers serve`; None when something else is run."""
    line = command_line(recommendation, config)
    place = line.words.index("serve") - 1 if line and "serve" in line.words else -1
    if line is None or place < 0 or "transformers" not in line.words[place]:
        return None
    line = line.starting_at(place)
    words = line.words[1:]
    _, found = options(words)
    batching = {key: typed(found[flag][0]) if found[flag] else True for flag, key in _SERVING.items() if flag in found}
    comment = mention(recommendation)
    files = {"serve.sh": as_script(["transformers", *by_line(words)], line.environment, [comment])}
    use = "`{bundle}/serve.sh --host 0.0.0.0 --port 8000`"
    if batching and "continuous-batching" in found:
        files["continuous_batching.json"] = as_json(batching)
        use += "; in Python `ContinuousBatchingConfig(**json.load(open('{bundle}/continuous_batching.json')))`"
    return Draft(files, use, line.left_out(config, "no option of the command line says it"), line.withheld)


def _if_there(file: str, program: str) -> str:
    return f"import os, sys; os.path.exists(sys.argv[1] + '/{file}') or sys.exit(0); {program}"
