"""For the Triton Inference Server: what `config.pbtxt` says of batching and instances.

What its schema has no field for becomes a parameter, which a Python backend reads from `args["model_config"]`.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from autotuner.exporters.documents import spelled
from autotuner.exporters.settings import Settings, mention, workload
from autotuner.plugins import Exporter
from autotuner.types import Check, Config, Draft, Recommendation, Value

_PARSE = (
    "import sys; from google.protobuf import text_format as t; from tritonclient.grpc import model_config_pb2 as m; "
    "t.Parse(open(sys.argv[1] + '/config.pbtxt').read(), m.ModelConfig())"
)


class TritonExporter(Exporter):
    """A model's config.pbtxt: batching, instances, and every other parameter for its Python backend."""

    kind: Literal["triton"] = "triton"
    model_name: str = Field("", description="The model's; the study's when left out.")
    backend: str = Field("python", description="python, pytorch, onnxruntime, tensorrt, …")
    target_version: ClassVar[str] = "Triton's model configuration, as of tritonclient 2.73"
    needs: ClassVar[str] = "a study of inference; --set backend=…, --set model_name=…"

    def draft(self, config: Config, recommendation: Recommendation) -> Draft:
        """`config.pbtxt`; its inputs and outputs are completed by the server, or are yours to add."""
        settings = Settings(config)
        batch = settings.take("max_batch_size", "batch_size")
        delay = None if batch is None else settings.take("max_queue_delay_microseconds")  # of batching
        instances = settings.take("instance_count", "instances")
        device = "KIND_CPU" if recommendation.spec.get("device") == "cpu" else "KIND_GPU"
        lines = [f"# {mention(recommendation)}"]
        lines += [f"name: {_quoted(self.model_name or recommendation.study)}", f"backend: {_quoted(self.backend)}"]
        if batch is not None:
            lines += [f"max_batch_size: {batch}", "dynamic_batching {", f"  preferred_batch_size: [{batch}]"]
            lines += [f"  max_queue_delay_microseconds: {delay}"] if delay is not None else []
            lines += ["}"]
        lines += [f"instance_group [{{ kind: {device} count: {1 if instances is None else instances} }}]"]
        rest = {name: value for name, value in config.items() if name in settings.left_out("")}
        if self.backend == "python":
            lines += _parameters(rest)
            left_out: Mapping[str, str] = {}
        else:
            left_out = settings.left_out(f"config.pbtxt has no field for it, and the backend {self.backend} reads none")
        use = "Put `{bundle}/config.pbtxt` beside the model's versions, with its inputs and outputs."
        if workload(recommendation).get("kind") == "transformers-inference" and self.backend == "python":
            use += " Your model.py reads the parameters from `args['model_config']`."
        return Draft({"config.pbtxt": ("\n".join(lines) + "\n").encode()}, use, left_out)

    def checks(self) -> Sequence[Check]:
        """Triton's own schema."""
        argv = ("{python}", "-c", _PARSE, "{bundle}")
        return (Check("Triton's ModelConfig schema", "tritonclient.grpc", argv),)


def _parameters(values: Mapping[str, Value]) -> list[str]:
    return [
        f"parameters {{ key: {_quoted(name)} value {{ string_value: {_quoted(spelled(value))} }} }}"
        for name, value in values.items()
    ]


def _quoted(text: str) -> str:
    r"""A string of protobuf's text format.

    >>> _quoted('a"b')
    '"a\\"b"'
    """
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(escapes.get(c, c) for c in text) + '"'
