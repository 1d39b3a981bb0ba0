"""What a study hands to deployment, and what deployment reads of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autotuner.types.config import Config
from autotuner.types.trial import Trial
from autotuner.types.verification import Verification


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What a study hands to deployment.

    Attributes:
        config: The configuration to use; the baseline's unless a candidate was verified BETTER.
        baseline: What was used before.
        verification: The proof.
        environment: The machine and versions that it was proven on.
        spec: The study file, as it was recorded.
        trials: Every trial, for an exporter that asks for them.
        forced: Why only force lets it be exported; empty when nothing stands against it.
    """

    study: str
    config: Config
    baseline: Config
    verification: Verification
    environment: Mapping[str, str]
    spec: Mapping[str, Any] = field(default_factory=dict)
    trials: Sequence[Trial] = ()
    forced: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """The files that a target reads.

    Attributes:
        files: `{path below the bundle: content}`.
        use: How the target takes them, in a line or a few; `{bundle}` stands for where they lie.
        left_out: `{parameter: why}`, of every one that the target cannot express.
        withheld: `{flag or variable: why}`, of what the study file fixes and the files do not say.
    """

    files: Mapping[str, bytes]
    use: str = ""
    left_out: Mapping[str, str] = field(default_factory=dict)
    withheld: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """A program of the target's own that reads the files and fails when they are wrong.

    Attributes:
        name: What it is, in a few words.
        needs: The module, or the program, without which it cannot be run.
        argv: The program; `{python}` and `{bundle}` are filled in.
    """

    name: str
    needs: str
    argv: tuple[str, ...]
