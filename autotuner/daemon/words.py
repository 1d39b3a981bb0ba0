"""What a person can say to the daemon, what it means there, and when nothing comes of it."""

from dataclasses import replace

from autotuner.daemon.machine import Approved, Cleared, Froze, Happening, Recalled, Refused, Thawed, Triggered
from autotuner.store.journal import Journal
from autotuner.types import Phase, ServiceState

SAID = ("approve", "refuse", "rollback", "clear", "freeze", "unfreeze", "tune")
NEXT = {  # what a person has to do
    Phase.APPROVAL: "say it: autotune daemon approve, or refuse",
    Phase.ALARM: "when it is mended, say: autotune daemon clear",
}


def meaning(word: str, by: str) -> Happening:
    """The event that a word of `SAID` is."""
    match word:
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


def in_vain(state: ServiceState, word: str) -> str:
    """Why nothing comes of a word of `SAID`; empty when something does. The machine agrees."""
    match word, state.phase:
        case (("freeze" | "unfreeze"), _) if state.frozen == (word == "freeze"):
            return f"it is {'frozen already' if state.frozen else 'not frozen'}"
        case ("tune", Phase.WATCHING) | ("approve", Phase.APPROVAL) if state.frozen:
            return "it is frozen: unfreeze it first"
        case "tune", Phase.TUNING:
            return "a study is under way, and goes on"
        case "tune", phase if phase is not Phase.WATCHING:
            return f"it is at {phase}: say it again when it is watching"
        case (("approve" | "refuse"), phase) if phase is not Phase.APPROVAL:
            return "no candidate waits for approval"
        case "clear", phase if phase is not Phase.ALARM:
            return "there is no alarm"
        case "rollback", Phase.WATCHING if not state.previous:
            return "there is none before it"
        case "rollback", Phase.ROLLING_BACK:
            return "it is on its way back"
        case "rollback", Phase.ALARM:
            return "the way back has failed: see to it, then say clear"
        case _:
            return ""


def doubts(journal: Journal, word: str) -> str:
    """Why nothing will come of a word that is said now, as things are; empty when something will."""
    state = journal.state()
    if state is None:
        return ""
    for entry in journal.entries(after=state.heard, kinds=("freeze", "unfreeze")):  # said before it, and not yet heard
        state = replace(state, frozen=entry.kind == "freeze")
    return in_vain(state, word)
