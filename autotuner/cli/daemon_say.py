"""What a person says to the daemon: `autotune daemon approve`, `refuse`, `rollback`, `clear`, `freeze`, and so on."""

import getpass
from collections.abc import Callable

from autotuner.cli.daemon_show import Service
from autotuner.cli.options import Db

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

    def say_it(service: Service, db: Db = None) -> None:
        from autotuner.daemon.telling import known
        from autotuner.records import open_record

        with open_record(db) as record:
            known(record, service).tell(word, {"by": getpass.getuser()})
        print(f"{word}: said to {service}; the daemon hears it at its next turn")

    say_it.__doc__ = WORDS[word]
    return say_it
