"""What a person says to the daemon: `autotune daemon approve`, `refuse`, `rollback`, `clear`, `freeze`, and so on."""

import getpass
import os
from collections.abc import Callable

from autotuner.cli.daemon_show import Service
from autotuner.cli.options import Db, Json

WORDS = {
    "tune": "Tune a service now, whatever is seen.",
    "approve": "Let the candidate that waits be tried.",
    "refuse": "Do not let it be tried.",
    "rollback": "Go back to the last good bundle; from a quiet service to the one before it.",
    "clear": "After an alarm: somebody has looked, the way back is tried again.",
    "freeze": "Change nothing for the better any more; what is being tried may still be taken back.",
    "unfreeze": "Changes are welcome again.",
}


def saying(word: str) -> Callable[..., None]:
    """The command that says this word."""

    def say_it(service: Service = None, db: Db = None, as_json: Json = False) -> None:
        from autotuner.daemon.words import doubts
        from autotuner.records import open_record
        from autotuner.report.json_lines import dump
        from autotuner.telling import known, named

        with open_record(db) as record:
            name = named(record, service)
            journal = known(record, name)
            doubt = doubts(journal, word)
            journal.tell(word, {"by": _who()})
        said = f"{word}: said to {name}; the daemon hears it at its next turn"
        but = f", but nothing comes of it as things are: {doubt}" if doubt else ""
        facts = {"service": name, "said": word, **({"but": doubt} if doubt else {})}
        print(dump(facts) if as_json else said + but)

    say_it.__doc__ = WORDS[word]
    return say_it


def _who() -> str:
    """The user's name; their number where nobody has named it, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
