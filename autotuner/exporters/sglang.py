"""For `python -m sglang.launch_server --config FILE`.

Its loader turns `key: value` into `--key value`; true into a switch, a false one is left out; a list into words.
"""

from typing import ClassVar, Literal

import yaml

from autotuner.exporters.command_line import command_line, options, typed, wrong_program
from autotuner.exporters.documents import as_yaml
from autotuner.exporters.settings import mention
from autotuner.exporters.variables import FOR_SHELL, as_env_file
from autotuner.plugins import Exporter
from autotuner.types import Config, Draft, Recommendation

_ALIASES = {"tp": "tp-size", "tensor-parallel-size": "tp-size", "dp": "dp-size", "data-parallel-size": "dp-size",
            "pp": "pp-size", "pipeline-parallel-size": "pp-size", "ep": "ep-size", "model": "model-path"}  # fmt: skip


class SglangExporter(Exporter):
    """The configuration file of SGLang's server, with the options that were measured."""

    kind: Literal["sglang"] = "sglang"
    target_version: ClassVar[str] = "sglang 0.5.23 (`sglang.launch_server --config`)"
    needs: ClassVar[str] = "a study of a server that runs sglang.launch_server"

    def draft(self, config: Config, recommendation: Recommendation) -> Draft:
        """`sglang.yaml`, and `sglang.env` where the study sets variables."""
        line = command_line(recommendation, config)
        if line is None or not any(word.startswith("sglang") for word in line.words[:4]):
            raise wrong_program(recommendation, self.kind, "sglang.launch_server")
        line = line.starting_at(next(i for i, word in enumerate(line.words) if word.startswith("sglang")))
        _, found = options(line.words, _ALIASES)
        document = {
            name: True if not words else typed(words[0]) if len(words) == 1 else [typed(word) for word in words]
            for name, words in found.items()
        }
        text = as_yaml(document, comments=[mention(recommendation)])
        assert yaml.safe_load(text) == document, text
        files = {"sglang.yaml": text}
        use = "`python -m sglang.launch_server --config {bundle}/sglang.yaml`"
        if line.environment:
            files["sglang.env"] = as_env_file(line.environment)
            use += FOR_SHELL.format("sglang")
        return Draft(files, use, line.left_out(config, "no option of the server's command line says it"), line.withheld)
