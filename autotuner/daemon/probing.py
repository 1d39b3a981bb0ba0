"""Numbers of this machine from our own probes: what the GPU and the host do while a service is watched."""

import math
from contextlib import ExitStack

from autotuner.daemon.sources import Gap, Read, Reading
from autotuner.errors import UsageError
from autotuner.plugins import Probe, ProbeReader, load_class
from autotuner.types import Metrics

# Of the host's signals these are the machine's; the others tell of the process that asks, here the daemon.
OF_THE_HOST = (
    "cpu_foreign_ratio", "cpu_steal_ratio", "psi_cpu_some_ratio", "psi_io_some_ratio", "psi_memory_some_ratio",
)  # fmt: skip
_DEVICES = {"host": "cpu"}  # every other probe is opened for the GPU, where there is one


def check(kind: str, name: str) -> None:
    """Whether a probe can be asked for a number.

    Raises:
        UsageError: There is no such probe, or the number tells of the daemon itself.
    """
    load_class("probes", kind, Probe)
    if kind == "host" and name not in OF_THE_HOST:
        raise UsageError(
            f"the host's {name} is no number of the whole machine", "take one of " + ", ".join(OF_THE_HOST)
        )


class Probes:
    """Probes that are open for as long as the daemon watches, each once.

    Args:
        stack: Closes them.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._readers: dict[str, ProbeReader] = {}
        self._seen: dict[str, tuple[float, Metrics]] = {}

    def look(self, kind: str, now_s: float) -> Metrics:
        """What was seen since the last look; the same for the same `now_s`."""
        if kind not in self._readers:
            probe = load_class("probes", kind, Probe)(kind=kind)
            self._readers[kind] = self._stack.enter_context(probe.open(_DEVICES.get(kind, "cuda")))
        if self._seen.get(kind, (math.nan,))[0] != now_s:
            self._seen[kind] = now_s, self._readers[kind].read()
        return self._seen[kind][1]


class Probed:
    """A signal of a probe.

    Args:
        probes: Shared by all signals.
        kind: Of the probe: gpu or host.
        name: As docs/signals.md has it.
    """

    def __init__(self, probes: Probes, kind: str, name: str) -> None:
        self._probes, self._kind, self._name = probes, kind, name

    def read(self, now_s: float) -> Read:
        """Of the time since the last look."""
        seen = self._probes.look(self._kind, now_s)
        if not seen:
            return Gap(f"the probe {self._kind} sees nothing here: is there a GPU? see autotune doctor")
        value = seen.get(self._name, math.nan)
        if not math.isfinite(value):
            return Gap(f"the probe {self._kind} tells no {self._name}, or only at the second look")
        return Reading(value, now_s)
