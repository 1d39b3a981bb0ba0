"""For `vllm serve --config FILE`.

Its loader turns `key: value` into `--key value`: true into a switch, false into `--no-key`, a mapping into JSON, a list
into words. It drops a false whose key has underscores, and writes null as the word None: neither is written here.
"""

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, ClassVar, Literal

import yaml

from autotuner.exporters.command_line import Options, command_line, options, typed, wrong_program
from autotuner.exporters.documents import as_yaml
from autotuner.exporters.settings import mention
from autotuner.exporters.variables import as_env_file
from autotuner.plugins import Exporter
from autotuner.types import Config, Draft, Recommendation

_SHORT = {
    "tp": "tensor-parallel-size", "pp": "pipeline-parallel-size", "dp": "data-parallel-size", "q": "quantization",
    "O": "optimization-level", "cc": "compilation-config", "sc": "speculative-config",
}  # fmt: skip
_ELSEWHERE = "no option of the server's command line says it"


class VllmExporter(Exporter):
    """The configuration file of `vllm serve`, with the options that were measured."""

    kind: Literal["vllm"] = "vllm"
    target_version: ClassVar[str] = "vllm 0.33 (`vllm serve --config`)"
    needs: ClassVar[str] = "a study of a server that runs vllm serve"

    def draft(self, config: Config, recommendation: Recommendation) -> Draft:
        """`vllm.yaml`, and `vllm.env` where the study sets variables."""
        line = command_line(recommendation, config)
        words = line.words if line else ()
        place = next((i for i, word in enumerate(words[:3]) if PurePath(word).name.startswith("vllm")), None)
        if line is None or place is None:
            raise wrong_program(recommendation, self.kind, "vllm serve")
        free, found = options(words[place + 1 :], _SHORT)
        model = next((word for word in free if word != "serve"), None)
        document = ({"model": model} if model else {}) | as_document(found)
        text = as_yaml(document, comments=[mention(recommendation)])
        assert _shape(arguments(text)) == _shape(_words(found, model)), text
        files = {"vllm.yaml": text}
        use = "`vllm serve --config {bundle}/vllm.yaml`"
        if line.environment:
            files["vllm.env"] = as_env_file(line.environment)
            use += ", with the variables of `vllm.env`"
        return Draft(files, use, line.left_out(config, _ELSEWHERE))


def as_document(found: Options) -> dict[str, Any]:
    """Options as the loader wants them."""
    document: dict[str, Any] = {}
    for name, words in found.items():
        if name.startswith("no-") and not words:
            document[name.removeprefix("no-")] = False
        elif not words:
            document[name] = True
        else:
            document[name] = _value(words[0]) if len(words) == 1 else [typed(word) for word in words]
    return document


def arguments(text: bytes) -> list[str]:
    """The command line that vLLM's loader makes of a file (FlexibleArgumentParser.load_config_file, vLLM 0.33)."""
    words: list[str] = []
    for key, value in yaml.safe_load(text).items():
        match value:
            case True:
                words.append(f"--{key}")
            case False:
                words += [f"--no-{key}"] if "_" not in key else []
            case list():
                words += [f"--{key}", *map(str, value)] if value else []
            case Mapping():
                words += [f"--{key}", json.dumps(value)]
            case _:
                words += [f"--{key}", str(value)]
    return words


def _value(word: str) -> Any:
    """A word as YAML; JSON becomes a mapping, which reads better."""
    if word.startswith("{"):
        try:
            return json.loads(word)
        except ValueError:
            return word
    return typed(word)


def _words(found: Options, model: str | None) -> list[str]:
    words = ["--model", model] if model else []
    for name, following in found.items():
        words += [f"--{name}", *following]
    return words


def _shape(words: list[str]) -> list[str]:
    """Words to be compared: JSON without its spaces."""
    return [json.dumps(json.loads(word)) if word.startswith("{") else word for word in words]
