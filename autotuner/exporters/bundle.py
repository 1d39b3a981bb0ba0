"""What every exporter that writes one file has in common: it refuses what is not proven, and writes all or nothing."""

import os
import tempfile
from pathlib import Path

from autotuner.errors import MachineError, UsageError
from autotuner.monitor.gpu import made_on_replay
from autotuner.plugins import Exporter
from autotuner.types import Decision, Recommendation


class FileExporter(Exporter):
    """Writes one file.

    Attributes:
        force: Write a recommendation that is not verified BETTER, which the file then says, and replace a file.
    """

    force: bool = False

    def admit(self, recommendation: Recommendation) -> None:
        """Refuse what was not verified BETTER, unless forced; and, force or not, what no device has measured.

        Raises:
            UsageError: Not verified BETTER and not forced, or made on a GPU that only plays values back.
        """
        if made_on_replay(recommendation.environment):
            raise UsageError(
                f"the recommendation of {recommendation.study} was made on {recommendation.environment['gpu']}, "
                "which is no device but plays values back",
                "measure on a real one; not even --force exports this",
            )
        verification = recommendation.verification
        if verification.decision is not Decision.BETTER and not self.force:
            raise UsageError(
                f"the recommendation of {recommendation.study} is {verification.decision}, not BETTER: "
                + verification.reason.rstrip("."),
                "keep what you run, or export it all the same with --force",
            )

    def write(self, path: Path, text: str) -> Path:
        """Write `text` so that a reader, or a power cut, finds the whole file or none.

        Raises:
            UsageError: The file is there already and nobody forces.
            MachineError: The directory cannot be written, or the disk is full.
        """
        if path.exists() and not self.force:
            raise UsageError(f"{path} is there already", "move it away, or replace it with --force")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, text.encode())
        except OSError as error:
            problem = f"cannot write {path}: {error.strerror or error}"
            raise MachineError(problem, "make room or name another folder with -o") from error
        return path


def is_forced(recommendation: Recommendation) -> bool:
    """Whether only force can have let this recommendation through."""
    return recommendation.verification.decision is not Decision.BETTER


def _replace(path: Path, content: bytes) -> None:
    """Write beside the target, make it durable, rename, make the rename durable."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
