"""A winner as a folder: the target's files, the proof, and what to go back to; written whole or not at all.

vllm.yaml            what the target reads; its name depends on the target
evidence.json        gain, interval, every pair, guards, machine, hashes of the files
README.md            how to use it, how to go back, what it does not say
rollback/vllm.yaml   the same of what was run before
"""

import ctypes
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from autotuner.errors import MachineError, UsageError
from autotuner.exporters.evidence import as_document, sentences
from autotuner.monitor.gpu import made_on_replay
from autotuner.plugins import Exporter
from autotuner.types import Decision, Draft, Recommendation, Value

EVIDENCE, ROLLBACK = "evidence.json", "rollback"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@dataclass(frozen=True, slots=True)
class Bundle:
    """What is to be written.

    Attributes:
        files: `{path below the folder: content}`.
        use: How the target takes it.
        left_out: `{parameter: why}`, of what the target cannot express.
        withheld: `{flag or variable: why}`, of what the study file fixes and the files do not say.
        forced: Why only force has let it through.
    """

    files: Mapping[str, bytes]
    use: str
    left_out: Mapping[str, str]
    withheld: Mapping[str, str] = field(default_factory=dict)
    forced: tuple[str, ...] = ()


def make_bundle(
    exporter: Exporter, recommendation: Recommendation, *, force: bool = False, hardware: str = ""
) -> Bundle:
    """Draw the recommendation and what it replaces for a target, with the proof.

    Args:
        exporter: The target's.
        recommendation: Of a study.
        force: Also what is not proven, which the bundle then says.
        hardware: What it will run on: a part of the GPU's or, without one, the CPU's name; empty: not stated.

    Raises:
        UsageError: Not verified BETTER, or proven on other hardware, and not forced; or made on a GPU that only plays
            values back; or of a study that the target cannot use.
    """
    if exporter.deploys:
        recommendation = _admitted(recommendation, force=force, hardware=hardware)
    new = exporter.draft(recommendation.config, recommendation)
    _check_says_something(exporter, recommendation, new, force=force)
    old = exporter.draft(recommendation.baseline, recommendation)
    files = dict(new.files)
    if dict(old.files) != files:
        files |= {f"{ROLLBACK}/{name}": content for name, content in old.files.items()}
    back = f"`{ROLLBACK}/` holds the same files with what was run before."
    back = back if dict(old.files) != dict(new.files) else "Nothing to do: what was run before makes the same files."
    files["README.md"] = _readme(exporter, recommendation, new, back).encode()
    document = as_document(recommendation, recommendation.forced) | {
        "target": exporter.kind,
        "target_version": exporter.target_version,
        "left_out": dict(new.left_out),
        "withheld": dict(new.withheld),
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())},
    }
    files[EVIDENCE] = (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    return Bundle(files, new.use, new.left_out, new.withheld, recommendation.forced)


def write_bundle(bundle: Bundle, directory: Path, *, force: bool = False) -> Path:
    """Write a bundle so that a reader, or a power cut, finds the whole folder or none.

    Args:
        bundle: To be written.
        directory: Where; it is made.
        force: Replace a bundle that is there.

    Raises:
        UsageError: The folder is there already and nobody forces, or it is no bundle.
        MachineError: It cannot be written, or the disk is full.
    """
    directory = directory.resolve()  # through a link: what it leads to is replaced, not the link
    there = _is_there(directory)
    if there and not force:
        raise UsageError(f"{directory} is there already", "move it away, or replace it with --force")
    if there and not (directory / EVIDENCE).is_file():
        raise UsageError(f"{directory} is no bundle of ours, so even --force keeps it", "name another folder with -o")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        _replace(directory, bundle.files)
    except OSError as error:
        problem = f"cannot write {directory}: {error.strerror or error}"
        raise MachineError(problem, "make room or name another folder with -o") from error
    return directory


def described(name: str, value: Value, why: str) -> str:
    """`threads = 2: why`, of a parameter that is left out."""
    return f"{name} = {value}: {why}"


def _admitted(recommendation: Recommendation, *, force: bool, hardware: str) -> Recommendation:
    """The recommendation, with the reasons why only force lets it through."""
    environment, proof = recommendation.environment, recommendation.verification
    if made_on_replay(environment):
        raise UsageError(
            f"the recommendation of {recommendation.study} was made on {environment['gpu']}, "
            "which is no device but plays values back",
            "measure on a real one; not even --force exports this",
        )
    reasons = []
    if proof.decision is not Decision.BETTER:
        reasons.append(f"{proof.decision}, not BETTER: {proof.reason.rstrip('.')}")
    machine = environment.get("gpu") or environment.get("cpu") or "unknown hardware"
    if not environment:
        reasons.append("proven nobody knows where: the record names no machine")
    if hardware and hardware.casefold() not in machine.casefold():
        reasons.append(f"proven on {machine}, not on {hardware}")
    if reasons and not force:
        raise UsageError(
            f"the recommendation of {recommendation.study} is {'; and '.join(reasons)}",
            "keep what you run, or export it all the same with --force",
        )
    return replace(recommendation, forced=tuple(reasons))


def _check_says_something(exporter: Exporter, recommendation: Recommendation, draft: Draft, *, force: bool) -> None:
    """Refuse files that say nothing of what the winner changes: whoever used them would believe in a gain."""
    baseline = recommendation.baseline
    changed = [name for name, value in recommendation.config.items() if value != baseline.get(name)]
    if exporter.deploys and not force and changed and all(name in draft.left_out for name in changed):
        raise UsageError(
            f"{exporter.kind} can be told nothing of what {recommendation.study} changes: {', '.join(changed)}",
            "choose another target: autotune export --list",
        )


def _readme(exporter: Exporter, recommendation: Recommendation, draft: Draft, back: str) -> str:
    lines = [f"# {recommendation.study} for {exporter.kind}", ""]
    lines += [f"- {_one_line(sentence)}" for sentence in sentences(recommendation, recommendation.forced)]
    if changed := _changed(recommendation):
        lines += ["", "## What changes", "", *(f"- {_one_line(text)}" for text in changed)]
    lines += ["", "## Use it", "", "In this folder:", "", *ways_to_use(draft.use, ".")]
    lines += ["", "## Proven on", ""]
    lines += [f"- {_one_line(f'{key}: {value}')}" for key, value in sorted(recommendation.environment.items())]
    lines += ["", "## Go back", "", back]
    lines += ["", f"Written for {exporter.target_version}. The proof, and hashes of the files: `{EVIDENCE}`."]
    missing = [described(name, recommendation.config.get(name), why) for name, why in draft.left_out.items()]
    missing += [f"{name}: {why}" for name, why in draft.withheld.items()]
    if missing:
        lines += ["", "## Not in these files", "", *(f"- {_one_line(text)}" for text in missing)]
    return "\n".join(lines) + "\n"


def ways_to_use(use: str, place: str) -> list[str]:
    """Each way to use a bundle as a line of a list."""
    return [f"- {way.strip()}" for way in use.replace("{bundle}", place).split("; or ")]


def _changed(recommendation: Recommendation) -> list[str]:
    """`batch_size: 1 → 16`, of every parameter that the configuration changes."""
    before = recommendation.baseline
    return [
        f"{name}: {before.get(name)} → {value}"
        for name, value in recommendation.config.items()
        if value != before.get(name)
    ]


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _is_there(directory: Path) -> bool:
    """Whether something is in the way: a file, or a folder that is not empty."""
    return directory.is_file() or (directory.is_dir() and any(directory.iterdir()))


def _replace(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write beside the target, make it durable, change places, make that durable."""
    beside = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    try:
        for name, content in files.items():
            path = beside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, content)
        for folder in (beside, *(path for path in beside.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
            _sync(folder)
        if _is_there(directory):
            _exchange(beside, directory)
        else:
            beside.rename(directory)  # an empty folder there is replaced
        _sync(directory.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)  # what was there before, or what could not be finished


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), 0o755 if content.startswith(b"#!") else 0o644)
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(one: Path, other: Path) -> None:
    """Let two folders change places at once, so that nobody finds none; one after the other where NFS cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        return
    if (number := ctypes.get_errno()) not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(number, os.strerror(number), str(other))
    aside = one.with_name(f"{one.name}.old")
    other.rename(aside)
    try:
        one.rename(other)
    except OSError:
        aside.rename(other)
        raise
    aside.rename(one)
