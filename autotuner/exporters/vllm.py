"""For `vllm serve --config FILE`, which takes long option names only.

Its loader turns `key: value` into `--key value`: true into a switch, false into `--no-key`, a mapping into JSON, a list
into words. It drops a false whose key has underscores, and writes null as the word None: neither is written here.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, ClassVar, Literal

import yaml

from autotuner.errors import UsageError
from autotuner.exporters.command_line import Options, command_line, options, typed, wrong_program
from autotuner.exporters.documents import as_yaml
from autotuner.exporters.settings import mention
from autotuner.exporters.variables import FOR_SHELL, as_env_file
from autotuner.plugins import Exporter
from autotuner.types import Config, Draft, Recommendation

_SHORT = {
    "tp": "tensor-parallel-size", "pp": "pipeline-parallel-size", "dp": "data-parallel-size", "q": "quantization",
    "dpn": "data-parallel-rank", "dpr": "data-parallel-start-rank", "dpl": "data-parallel-size-local",
    "dpa": "data-parallel-address", "dpp": "data-parallel-rpc-port", "dpb": "data-parallel-backend",
    "dcp": "decode-context-parallel-size", "ep": "enable-expert-parallel", "n": "nnodes", "r": "node-rank",
    "O": "optimization-level", "cc": "compilation-config", "sc": "speculative-config",
}  # fmt: skip
_SWITCH = re.compile(r"(no|enable|disable)-(?!access-log-for).*|enforce-eager|trust-remote-code|async-scheduling")
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
        line = line.starting_at(place)
        found = _options(line.words[1:])
        text = as_yaml(as_document(found), comments=[mention(recommendation)])
        read, meant = ([*map(_value, words)] for words in (arguments(text), _words(found)))
        if read != meant:
            lost = next((word for word in meant if word not in read), "this command line")
            raise UsageError(f"vLLM's configuration file cannot say {lost}", "write it differently in the study file")
        files = {"vllm.yaml": text}
        use = "`vllm serve --config {bundle}/vllm.yaml`"
        if line.environment:
            files["vllm.env"] = as_env_file(line.environment)
            use += FOR_SHELL.format("vllm")
        return Draft(files, use, line.left_out(config, _ELSEWHERE), line.withheld)


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


def _options(words: Sequence[str]) -> Options:
    """The options of a command line under their long names, the model first."""
    words = [re.sub(r"^-O(?=[^.=])", "-O=", word) for word in words]
    for word in words:
        short = re.match(r"-([A-Za-z]\w*)", word)
        if short and short[1] not in _SHORT:
            raise UsageError(f"vLLM's configuration file knows no {word}", "write the option's long name")
    free, found = options(words, _SHORT)
    models = [word for word in free if word != "serve"]
    for name, following in found.items():
        if _SWITCH.fullmatch(name) and following:  # a switch takes no word, so this one is the model
            models += following
            found[name] = ()
    if len(models) + ("model" in found) != 1:
        raise UsageError("which word is the model, or where is it?", "write it right behind `vllm serve`")
    return {"model": tuple(models)} | found if models else found


def _value(word: str) -> Any:
    """A word as YAML; JSON becomes a mapping, which reads better."""
    if word.startswith("{"):
        try:
            value = json.loads(word)
            json.dumps(value, allow_nan=False)  # YAML has other words for what is not finite
        except ValueError:
            return word
        return value
    return typed(word)


def _words(found: Options) -> list[str]:
    return [word for name, following in found.items() for word in (f"--{name}", *following)]
