"""One study for all: the storage has moved away, the daemon has found what is better now, and waits for a person."""

import fcntl
import json
import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from outside import program, wait_until
from stage import FAR, Stage

from autotuner.store import open_record
from autotuner.types import Phase, ServiceState

APPROVAL = [("lease: 5 s", "lease: 2 s\napproval: true")]


@dataclass(frozen=True)
class Found:
    """A service whose daemon waits for approval.

    Attributes:
        record: Its folder.
        state: In it.
        seen: What was so until then: the configurations, how many requests were answered, and which failed.
    """

    record: Path
    state: ServiceState
    seen: dict


def skip_without(*names):
    for name in names:
        if program(name) is None:
            pytest.skip(f"there is no {name} here: `make prometheus servers` unpacks Debian's")


@pytest.fixture(scope="session")
def found(tmp_path_factory):
    """Made once, whichever of pytest's workers needs it first."""
    skip_without("haproxy", "prometheus")
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "found"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "seen.json").exists():
            seen = find(folder)
            (folder / "seen.json").write_text(json.dumps(seen))
    with open_record(str(folder / "record" / "autotune.db")) as record:
        state = record.journal("shop").state()
    return Found(folder / "record", state, json.loads((folder / "seen.json").read_text()))


def find(folder):
    with Stage(folder / "s", changes=APPROVAL) as stage, stage.daemon() as daemon:
        stage.until(lambda state: state.phase is Phase.WATCHING and state.reached, daemon)
        stage.users.begin()
        wait_until(lambda: stage.users.answered > 100)
        stage.is_live(FAR)
        stage.in_study(FAR)
        state = stage.until(lambda state: state.phase is Phase.APPROVAL, daemon)
        stage.snapshot(folder / "record")
        reasons = [entry.payload["reason"] for entry in stage.entries("tuning")]
        return {
            "reasons": reasons, "before": stage.config(state.last_good), "after": stage.config(state.candidate),
            "answered": stage.users.answered, "failures": stage.users.failures,
        }  # fmt: skip


@pytest.fixture
def waiting(found, tmp_path):
    """Makes a stage in which what is stable serves, users ask, and a person has let the canary begin.

    Args of what it gives: what to write instead of what in the daemon's file, and what is wrong with the service.
    """
    with ExitStack() as stack:

        def begin(*changes, proxy="haproxy", **faults):
            skip_without(proxy)
            stage = stack.enter_context(Stage(tmp_path / "s", proxy, found.record, [*APPROVAL, *changes]))
            stage.is_live(FAR, **faults)
            stage.resume(found.state.last_good)
            stage.users.begin()
            stage.say("approve")
            return stage

        yield begin
