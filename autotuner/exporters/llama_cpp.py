"""For llama.cpp's `llama-server`: a script that starts it."""

from pathlib import PurePath
from typing import ClassVar, Literal

from autotuner.exporters.command_line import by_line, command_line, is_flag, wrong_program
from autotuner.exporters.documents import as_script
from autotuner.exporters.settings import mention
from autotuner.plugins import Exporter
from autotuner.types import Config, Draft, Recommendation

_PROGRAMS = ("llama-server", "llama_cpp.py")  # the second is our example, with the options of the first


class LlamaCppExporter(Exporter):
    """A script that starts llama-server with the options that were measured."""

    kind: Literal["llama-cpp"] = "llama-cpp"
    target_version: ClassVar[str] = "llama.cpp's llama-server of 2026"
    needs: ClassVar[str] = "a study of a server that runs llama-server, or examples/servers/llama_cpp.py"

    def draft(self, config: Config, recommendation: Recommendation) -> Draft:
        """`llama-server.sh`; `LLAMA_SERVER` names another program than the one on the path."""
        line = command_line(recommendation, config)
        place = (
            next((i for i, word in enumerate(line.words) if PurePath(word).name in _PROGRAMS), None) if line else None
        )
        if line is None or place is None:
            raise wrong_program(recommendation, self.kind, "llama-server")
        line = line.starting_at(place)
        words = [*_translated(line.words[1:])]
        program = "${LLAMA_SERVER:-llama-server}"
        text = as_script([program, *by_line(words)], line.environment, [mention(recommendation)])
        use = "`{bundle}/llama-server.sh --host 0.0.0.0 --port 8080`; `LLAMA_SERVER` names another program."
        left_out = line.left_out(config, "no option of the command line says it")
        return Draft({"llama-server.sh": text}, use, left_out, line.withheld)


def _translated(words: tuple[str, ...]) -> list[str]:
    """Our example's two short cuts as llama-server spells them."""
    if words and not is_flag(words[0]):
        words = ("--model", *words)
    translated: list[str] = []
    for place, word in enumerate(words):
        flag, sign, value = word.partition("=")
        if flag == "--cache-type":
            value = value if sign else words[place + 1]
            translated += ["--cache-type-k", value, "--cache-type-v", *([value] if sign else [])]
        else:
            translated.append(word)
    return translated
