"""The errors that a person sees: one message, one hint, one exit code.

Foreign exceptions (SQLAlchemy's, torch's, the operating system's) are translated to these once, at the door where
they come in. The command line prints `message` and `hint` in one line and leaves with `exit_code`.
"""

from typing import ClassVar


class AutotuneError(Exception):
    """Something went wrong that a person can act on.

    Attributes:
        message: What is wrong, with the file, key or value that it concerns.
        hint: What to do about it; empty if nothing can be said.
        exit_code: What the command line returns: 2 for the user's mistake, 3 for the environment's.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)  # both, so that a worker can send it home
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(AutotuneError):
    """The user asked for something that cannot be meant: a wrong key, file, name or value."""

    exit_code = 2


class MachineError(AutotuneError):
    """The machine cannot do it now: no GPU, a full disk, a locked database, a busy device."""

    exit_code = 3


class UnsupportedError(AutotuneError):
    """A workload cannot run this configuration here, on this hardware or with these versions."""


class UnbelievableError(AutotuneError):
    """A measurement was taken, but an audit says that it cannot be believed."""


class InvalidConfigError(AutotuneError):
    """A workload rejects a configuration that no hardware could run."""
