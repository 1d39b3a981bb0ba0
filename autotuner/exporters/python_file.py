"""A Python module that holds the configuration and applies what torch can be told for the whole process."""

import ast
from collections.abc import Iterator
from pprint import pformat
from typing import ClassVar, Literal

from autotuner.exporters.settings import mention, workload
from autotuner.plugins import Exporter
from autotuner.types import Config, Draft, Recommendation

_HEAD = '''"""A configuration to be applied. {mention}.

    from {module} import CONFIG, apply

    apply()  # before the model is made
"""

CONFIG = {config}
'''
_INFERENCE = {"dtype": "dtype", "attention": "attn_implementation"}


class PythonExporter(Exporter):
    """A Python module: CONFIG, and functions that apply it."""

    kind: Literal["python"] = "python"
    target_version: ClassVar[str] = "Python 3.11, torch 2.11, transformers 5.17"

    def draft(self, config: Config, recommendation: Recommendation) -> Draft:
        """`STUDY_config.py`."""
        module = "".join(c if c.isalnum() else "_" for c in recommendation.study) + "_config"
        module = module if not module[0].isdigit() else f"_{module}"
        literal = pformat(dict(config), sort_dicts=False, width=100)
        text = _HEAD.format(mention=mention(recommendation), module=module, config=literal)
        text += "\n" + "\n".join(_functions(config, str(workload(recommendation).get("kind"))))
        assert read_config(text) == dict(config), text
        return Draft(
            {f"{module}.py": text.encode()}, f"`from {module} import CONFIG, apply`, with {{bundle}} on the path"
        )


def read_config(text: str) -> dict[str, object]:
    """What a module's CONFIG says, without running it."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "CONFIG":
            found = ast.literal_eval(node.value)
            assert isinstance(found, dict)
            return found
    raise ValueError("no CONFIG")


def _functions(config: Config, kind: str) -> Iterator[str]:
    yield from ("", "def apply() -> None:", '    """Tell torch what it keeps for the whole process."""')
    body = [*_process_wide(config)]
    yield from body or ["    # nothing here is process-wide"]
    applied = {"threads", "tf32", "compile", *(_INFERENCE if kind == "transformers-inference" else ())}
    if others := [name for name, value in config.items() if value is not None and name not in applied]:
        yield f"    # yours to apply, from CONFIG: {', '.join(others)}"
    if kind == "transformers-inference":
        arguments = ", ".join(f'"{key}": CONFIG["{name}"]' for name, key in _INFERENCE.items() if config.get(name))
        yield from ("", "", "def model_arguments() -> dict[str, object]:")
        yield from ('    """For from_pretrained(model, **model_arguments())."""', f"    return {{{arguments}}}")
    if isinstance(config.get("compile"), str):
        yield from ("", "", "def compiled(module):  # type: ignore[no-untyped-def]")
        yield from ('    """The module, compiled as it was measured."""', "    import torch", "")
        yield '    return module if CONFIG["compile"] == "none" else torch.compile(module, mode=CONFIG["compile"])'
    yield ""


def _process_wide(config: Config) -> Iterator[str]:
    threads, tf32 = config.get("threads"), config.get("tf32")
    if threads is not None or tf32 is not None:
        yield from ("    import torch", "")
    if threads is not None:
        yield '    torch.set_num_threads(CONFIG["threads"])'
    if tf32 is not None:
        yield '    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = CONFIG["tf32"]'
