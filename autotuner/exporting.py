"""From a study's record to the files of a target: the recommendation, the exporter with its options, the checks."""

import importlib.util
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autotuner import plugins
from autotuner.errors import UsageError
from autotuner.exporters.bundle import Bundle, make_bundle, write_bundle
from autotuner.plugins import Exporter
from autotuner.records import open_record
from autotuner.store import Study
from autotuner.types import Config, Decision, Measurement, Recommendation, Trial, Verification, config_key

_CHECK_LIMIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Checked:
    """What one of a target's own programs said of a bundle.

    Attributes:
        name: What looked at it.
        passed: None when it is not installed here.
        text: Its last words when it failed, what is missing when it is not installed.
    """

    name: str
    passed: bool | None
    text: str = ""


def recommendation(study: Study, *, force: bool = False, unfinished: bool = False) -> Recommendation:
    """What a study hands to deployment: the winner if it was verified BETTER, or by force, else the baseline.

    Args:
        study: With a verdict.
        force: The candidate whatever the verdict.
        unfinished: Also of a study without a verdict.

    Raises:
        UsageError: The study has not come to a verdict.
    """
    found = study.verifications()
    if not found and not unfinished:
        raise UsageError(f"study {study.name!r} has not come to a verdict yet", f"autotune study resume {study.name}")
    spec, every = study.spec(), study.trials(samples=False)
    verification = found[-1][1] if found else _not_verified(spec)
    return Recommendation(
        study=study.name,
        config=verification.config if force or verification.decision is Decision.BETTER else verification.baseline,
        baseline=verification.baseline,
        verification=verification,
        environment=verification.environment or _environment(every, verification.config),
        spec=spec,
        trials=every,
    )


def unverified(spec: Mapping[str, Any], name: str) -> Recommendation:
    """What is in use today, as a recommendation that nobody has proven: to draw a target's files of it."""
    proof = _not_verified(spec)
    return Recommendation(name, proof.config, proof.baseline, proof, {}, spec)


def _not_verified(spec: Mapping[str, Any]) -> Verification:
    """In the place of a verdict, for those who only look."""
    baseline = {name: parameter["default"] for name, parameter in spec["parameters"].items()}
    first = spec["objectives"][0]
    return Verification(
        Decision.INVALID, "not verified yet.", baseline, baseline, first["maximize"] or first["minimize"], 1.0,
        (0.0, math.inf),
    )  # fmt: skip


def _environment(trials: Sequence[Trial], config: Config) -> Mapping[str, str]:
    """Where a configuration was measured, for records that do not say where it was verified."""
    measured = [(trial.config, trial.outcome) for trial in trials if isinstance(trial.outcome, Measurement)]
    its_own = [outcome for tried, outcome in measured if config_key(tried) == config_key(config)]
    others = [outcome for _, outcome in measured]
    return (its_own or others)[-1].environment if measured else {}


def make_exporter(target: str, settings: Sequence[str] = ()) -> Exporter:
    """The exporter of a target with its options.

    Args:
        target: Its name.
        settings: "option=value", or "option.key=value" where the option is a mapping.

    Raises:
        UsageError: No such target, or no such option.
    """
    kind = plugins.load_class("exporters", target, Exporter)
    try:
        return kind.model_validate(_options(settings))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        known = ", ".join(name for name in kind.model_fields if name != "kind") or "none"
        where = ".".join(str(part) for part in first["loc"])
        problem = "there is no such option" if first["type"] == "extra_forbidden" else first["msg"]
        raise UsageError(f"--set {where}: {problem}", f"the options of {target}: {known}") from None


def export(
    name: str,
    target: str,
    directory: Path | None = None,
    *,
    db: str | None = None,
    force: bool = False,
    hardware: str = "",
    settings: Sequence[str] = (),
) -> tuple[Path, Bundle]:
    """Write a study's recommendation for a target: a folder with the target's files, the proof, the way back.

    Args:
        name: The study's.
        target: The exporter's name.
        directory: The folder to be made; `exports/TARGET` of the study's when left out.
        db: The record.
        force: Also what is not verified BETTER, which the folder then says; and replace a folder of ours.
        hardware: What it will run on, a part of the GPU's or CPU's name; empty: not stated.
        settings: Options of the exporter, "option=value".

    Raises:
        UsageError: Unknown target or option, nothing verified BETTER and not forced, or the folder is there already.
    """
    with open_record(db) as record:
        _, bundle = draw(record.study(name), target, settings, force=force, hardware=hardware)
        return write_bundle(bundle, directory or record.folder(name) / "exports" / target, force=force), bundle


def check_export(
    name: str, target: str, *, db: str | None = None, force: bool = False, hardware: str = "",
    settings: Sequence[str] = (),
) -> tuple[Bundle, Sequence[Checked]]:  # fmt: skip
    """What `export` would write, and what the target's own programs say of it; nothing is written.

    Raises:
        UsageError: As `export`.
    """
    with open_record(db) as record:
        exporter, bundle = draw(record.study(name), target, settings, force=force, hardware=hardware)
    return bundle, [*run_checks(exporter, bundle)]


def export_targets() -> Mapping[str, type[Exporter]]:
    """Every installed exporter."""
    return {name: plugins.load_class("exporters", name, Exporter) for name in sorted(plugins.names("exporters"))}


def draw(
    study: Study, target: str, settings: Sequence[str] = (), *, force: bool = False, hardware: str = ""
) -> tuple[Exporter, Bundle]:
    """The exporter of a target, and what it makes of a study.

    Raises:
        UsageError: Unknown target or option, nothing verified BETTER and not forced, or a study it cannot use.
    """
    exporter = make_exporter(target, settings)
    found = recommendation(study, force=force, unfinished=not exporter.deploys)
    return exporter, make_bundle(exporter, found, force=force, hardware=hardware)


def run_checks(exporter: Exporter, bundle: Bundle) -> Iterator[Checked]:
    """Let the target's own programs read a bundle, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_bundle(bundle, Path(folder) / "bundle")
        for check in exporter.checks():
            if not _is_installed(check.needs):
                yield Checked(check.name, None, f"{check.needs} is not installed")
                continue
            words = [word.replace("{python}", sys.executable).replace("{bundle}", str(path)) for word in check.argv]
            yield _run(check.name, words)


def _run(name: str, words: Sequence[str]) -> Checked:
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_CHECK_LIMIT_S, check=False,
            env={**os.environ, "PATH": _path()},
        )  # fmt: skip
    except OSError as error:
        return Checked(name, None, f"{words[0]}: {error.strerror}")
    except subprocess.TimeoutExpired:
        return Checked(name, False, f"no answer within {_CHECK_LIMIT_S:g} s")
    return Checked(name, done.returncode == 0, "" if done.returncode == 0 else _last_words(done.stderr or done.stdout))


def _last_words(text: str) -> str:
    """The exception at the end of an output, whose text may have several lines; else the last line."""
    lines = [line for line in text.splitlines() if line.strip()] or ["it said nothing"]
    starts = [place for place, line in enumerate(lines) if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return " ".join(" ".join(lines[starts[-1] if starts else -1 :]).split())[:400]


def _is_installed(name: str) -> bool:
    """A module, or a program on the path or beside our Python."""
    if shutil.which(name, path=_path()):
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a module whose package is not there
        return False


def _path() -> str:
    """Where programs are looked for: beside our Python first, whether or not its environment was activated."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def _options(settings: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in settings:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise UsageError(f"--set {text} gives no value", "write --set option=value")
        outer, dot, inner = key.partition(".")
        if dot:
            found.setdefault(outer, {})
            if not isinstance(found[outer], dict):
                raise UsageError(f"--set {text}: {outer} was given a value already", f"write --set {outer}.KEY=VALUE")
            found[outer][inner] = value
        else:
            found[outer] = value
    return found
