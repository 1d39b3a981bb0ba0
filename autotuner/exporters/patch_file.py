"""A diff of a file of the user's: only the values of the parameters change, and `git apply` takes it."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from autotuner.errors import UsageError
from autotuner.exporters.places import Place, find_places
from autotuner.exporters.rewriting import rewrite
from autotuner.plugins import Exporter
from autotuner.types import Check, Config, Draft, Recommendation


class PatchExporter(Exporter):
    """A diff of a file that you name, with the winner's values in the places of today's."""

    kind: Literal["patch"] = "patch"
    file: Path = Field(Path(), description="Python, YAML, JSON, TOML, or NAME=value lines.")
    names: Mapping[str, str] = Field(
        default_factory=dict, description="{parameter: what the file calls it}; NAME:LINE where there are several."
    )
    target_version: ClassVar[str] = "git 2 (`git apply`)"
    needs: ClassVar[str] = "any study; --set file=train.py, and --set names.batch_size=BATCH where names differ"

    def draft(self, config: Config, recommendation: Recommendation) -> Draft:
        """`FILE.patch`; the one to go back with undoes it."""
        if self.file == Path():
            raise UsageError("the target patch needs a file to change", "--set file=train.py")
        try:
            text = self.file.read_bytes().decode()  # as it is: \r belongs to a line
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read {self.file}: {getattr(error, 'strerror', None) or error}") from None
        wanted = recommendation.config
        places: dict[str, Place] = {}
        left_out = {}
        for name, value in wanted.items():
            called = self.names.get(name, name)
            found = [*find_places(text, self.file, called)]
            if value is None:
                if found:
                    left_out[name] = f"it has no value, and {self.file} keeps its own in line {found[0].line}"
            elif len(found) > 1:
                raise UsageError(
                    f"{self.file} says {called} in lines {', '.join(str(place.line) for place in found)}",
                    f"say which: --set names.{name}={called}:{found[0].line}",
                )
            elif found:
                places[name] = found[0]
            else:
                left_out[name] = f"{self.file} has no literal value called {called}"
        if not places:
            raise UsageError(
                f"{self.file} has none of the parameters: {', '.join(wanted)}",
                "say what it calls them: --set names.batch_size=BATCH",
            )
        changed = rewrite(text, self.file, {places[name]: wanted[name] for name in places})
        before, after = (text, changed) if dict(config) == dict(recommendation.config) else (changed, text)
        name = f"{self.file.name}.patch"
        diff = _diff(before, after, _below_root(self.file))
        return Draft({name: diff.encode()}, f"`git apply {{bundle}}/{name}`, at the top of the repository", left_out)

    def checks(self) -> Sequence[Check]:
        """Git itself."""
        argv = ("git", "-C", str(_root(self.file)), "apply", "--check", "{bundle}/" + f"{self.file.name}.patch")
        return (Check("git apply --check", "git", argv),)


def _root(file: Path) -> Path:
    """The top of the file's repository; where we are when it is in none."""
    return next((folder for folder in file.resolve().parents if (folder / ".git").exists()), Path.cwd())


def _below_root(file: Path) -> str:
    path, root = file.resolve(), _root(file)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else file.name


def _diff(before: str, after: str, name: str) -> str:
    """A unified diff; empty when nothing changes. The last line may lack its end."""
    return "".join(_ended(difflib.unified_diff(_lines(before), _lines(after), f"a/{name}", f"b/{name}")))


def _lines(text: str) -> list[str]:
    """As git counts them: nothing but a line feed ends one."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _ended(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
