"""What a person can say to the daemon, and what it means there."""

from autotuner.daemon.machine import Approved, Cleared, Froze, Happening, Recalled, Refused, Thawed, Triggered
from autotuner.store.journal import Entry

SAID = ("approve", "refuse", "rollback", "clear", "freeze", "unfreeze", "tune")


def meaning(entry: Entry) -> Happening:
    """The event that a word is.

    Args:
        entry: Of a kind of `SAID`.
    """
    by = str(entry.payload.get("by", "somebody"))
    match entry.kind:
        case "approve":
            return Approved(by)
        case "refuse":
            return Refused(by)
        case "rollback":
            return Recalled(f"{by} wants it back")
        case "clear":
            return Cleared(by)
        case "freeze":
            return Froze(by)
        case "unfreeze":
            return Thawed(by)
        case _:
            return Triggered(f"{by} asks for it")
