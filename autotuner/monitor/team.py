"""An opened workload on all of its ranks: rank 0 leads, the others do what it does, in the same order."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

from autotuner.errors import AutotuneError
from autotuner.monitor import gpu, host
from autotuner.monitor import torch as torch_door
from autotuner.plugins import OpenWorkload, ProbeReader, Step
from autotuner.types import Config, Metrics

Channel: TypeAlias = "Connection[Any, Any]"


# Of what every rank sees of its own GPU: what adds up, and how that begins of which the worst counts.
_SUMMED = ("power_w", "gpu_energy_j")
_WORST = ("throttle_", "gpu_lost", "gpu_foreign_processes", "ecc_uncorrected_errors")


class RankLostError(AutotuneError):
    """Another rank of the group has ended; its own failure says why."""


class Team:
    """What rank 0 sees of the workload. What the workload does not offer has its plain meaning.

    A step of a team ends when it has ended on every rank. A workload of one process is a team of one.
    """

    def __init__(self, opened: OpenWorkload, device: str, others: Sequence[Channel] = ()) -> None:
        self._opened, self._device, self._others = opened, device, others

    def step(self, config: Config) -> Step:
        """One step; what rank 0 says of it counts for all."""
        self._tell("step", config)
        step = self._opened.step(config)
        self._await()
        return step

    @property
    def warms_itself(self) -> bool:
        """See `plugins.Warming`."""
        return hasattr(self._opened, "warm_up")

    def warm_up(self, config: Config) -> None:
        """Make a configuration ready: by the workload's own way, or by a step."""
        if self.warms_itself:
            self._opened.warm_up(config)  # type: ignore[attr-defined]  # optional: see plugins.Warming
        else:
            self.step(config)

    @property
    def sized(self) -> bool:
        """Whether the workload knows a largest step."""
        return hasattr(self._opened, "worst_step")

    def worst_step(self, config: Config) -> Step:
        """A step on the largest input; an ordinary one where all are alike. See `plugins.Sized`."""
        self._tell("worst_step", config)
        step = worst_step(self._opened, config)
        self._await()
        return step

    def outputs(self, config: Config, reference: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Rank 0's outputs."""
        self._tell("outputs", config, reference)
        outputs = self._opened.outputs(config, reference)
        self._await()
        return outputs

    def characteristics(self, config: Config) -> Mapping[str, Sequence[float]]:
        """See `plugins.Characterised`; nothing where the workload does not know more of itself."""
        self._tell("characteristics", config)
        found = characteristics(self._opened, config)
        self._await()
        return found

    def signals(self) -> list[Metrics]:
        """What the probes of every other rank saw since they were last asked."""
        self._tell("signals")
        return self._await()

    def cycle_steps(self, config: Config) -> int:
        """See `plugins.Paced`."""
        cycle_steps = getattr(self._opened, "cycle_steps", None)
        return max(1, cycle_steps(config)) if cycle_steps else 1

    @property
    def uneven(self) -> bool:
        """See `plugins.Uneven`."""
        return bool(getattr(self._opened, "uneven", False))

    def idle(self) -> None:
        """See `plugins.Paced`."""
        self._tell("idle")
        idle(self._opened)
        self._await()

    def relieve(self, resource: str, config: Config) -> AbstractContextManager[float] | None:
        """See `plugins.Relievable`; None where nothing can be relieved."""
        relief = relieve(self._opened, resource, config)
        return None if relief is None else self._relieved(relief, resource, config)

    @contextmanager
    def _relieved(self, relief: AbstractContextManager[float], resource: str, config: Config) -> Iterator[float]:
        self._tell("relieve", resource, config)
        with relief as left:
            self._await()
            try:
                yield left
            finally:
                self._tell("restore")
                self._await()

    def settle_memory(self) -> None:
        """Free what loading and compiling left, and let the peaks start anew."""
        self._tell("settle_memory")
        settle_memory(self._device)
        self._await()

    def peak_memory_bytes(self) -> float:
        """The largest peak of any rank, where each has its own GPU; on a CPU the sum, for all share the host's."""
        self._tell("peak_memory_bytes")
        own = peak_memory_bytes(self._opened, self._device)  # before the others' answers: all look at once
        peaks: list[float] = [own, *self._await()]
        return sum(peaks) if self._device == "cpu" else max(peaks)

    def _tell(self, order: str, *arguments: object) -> None:
        try:
            for other in self._others:
                other.send((order, arguments))
        except OSError as error:
            raise RankLostError("another rank has ended") from error

    def _await(self) -> list[Any]:
        """Wait until the others have done what they were told, and return what they answer."""
        try:
            return [other.recv() for other in self._others]
        except (EOFError, OSError) as error:
            raise RankLostError("another rank has ended") from error


class TeamReader:
    """Reads the probes of all ranks: power adds up, the worst disturbance counts, all else is rank 0's."""

    def __init__(self, own: Sequence[ProbeReader], team: Team) -> None:
        self._own, self._team = own, team

    def read(self) -> Metrics:
        """See `plugins.ProbeReader`."""
        seen = read_all(self._own)
        for other in self._team.signals():
            for name, value in other.items():
                if name in _SUMMED and name in seen:
                    seen[name] += value
                elif name.startswith(_WORST):
                    seen[name] = max(seen.get(name, 0.0), value)
        return seen


def read_all(readers: Sequence[ProbeReader]) -> dict[str, float]:
    """What several probes see, together."""
    return {name: value for reader in readers for name, value in reader.read().items()}


def follow(opened: OpenWorkload, device: str, leader: Channel, readers: Sequence[ProbeReader] = ()) -> None:
    """Do what rank 0 does until it hangs up, and tell it what the own probes see."""
    with ExitStack() as reliefs:
        while True:
            try:
                order, arguments = leader.recv()
            except (EOFError, OSError):
                return
            leader.send(read_all(readers) if order == "signals" else _obey(opened, device, reliefs, order, arguments))


def _obey(opened: OpenWorkload, device: str, reliefs: ExitStack, order: str, arguments: tuple[Any, ...]) -> object:
    match order:
        case "step":
            opened.step(*arguments)
        case "worst_step":
            worst_step(opened, *arguments)
        case "outputs":
            opened.outputs(*arguments)
        case "characteristics":
            characteristics(opened, *arguments)
        case "idle":
            idle(opened)
        case "relieve":
            relief = relieve(opened, *arguments)
            assert relief is not None, "every rank can be relieved of what rank 0 can"
            reliefs.enter_context(relief)
        case "restore":
            reliefs.close()
        case "settle_memory":
            settle_memory(device)
        case "peak_memory_bytes":
            return peak_memory_bytes(opened, device)
    return None


def worst_step(opened: OpenWorkload, config: Config) -> Step:
    """The largest step where the workload knows one; else any."""
    largest = getattr(opened, "worst_step", opened.step)  # optional: see plugins.Sized
    step: Step = largest(config)
    return step


def characteristics(opened: OpenWorkload, config: Config) -> Mapping[str, Sequence[float]]:
    """What the workload knows of itself, if it does."""
    ask = getattr(opened, "characteristics", None)  # optional: see plugins.Characterised
    found: Mapping[str, Sequence[float]] = ask(config) if ask else {}
    return found


def idle(opened: OpenWorkload) -> None:
    """Tell a workload that works ahead that no step follows soon."""
    if stop := getattr(opened, "idle", None):  # optional: see plugins.Paced
        stop()


def relieve(opened: OpenWorkload, resource: str, config: Config) -> AbstractContextManager[float] | None:
    """The workload's relief of a resource, if it has one."""
    relief = getattr(opened, "relieve", None)  # optional: see plugins.Relievable
    found: AbstractContextManager[float] | None = relief(resource, config) if relief else None
    return found


def settle_memory(device: str) -> None:
    """Free what loading, compiling and earlier configurations left in this process, and let its peaks start anew."""
    torch_door.release_memory(device)
    torch_door.reset_peak_memory(device)
    host.reset_peak_rss()


def peak_memory_bytes(opened: OpenWorkload, device: str) -> float:
    """Of this process: reserved on its GPU, or resident on the host, with what its loader's processes add.

    Of a workload that others work for, theirs: what they hold of the GPUs, or their largest resident sets.
    """
    if account := getattr(opened, "peak_memory_bytes", None):  # optional: see plugins.Accounting
        return float(account())
    if workers := getattr(opened, "processes", None):  # optional: see plugins.Delegating
        pids = workers()
        return host.peak_rss_bytes_of(pids) if device == "cpu" else gpu.memory_bytes_of(pids)
    on_device = torch_door.peak_memory_bytes(device)
    return host.peak_rss_bytes() + host.private_bytes_of_children() if on_device is None else on_device
