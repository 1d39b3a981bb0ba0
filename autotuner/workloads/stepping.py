"""The user's loop, one step at a time: three forms of an object become one thing that can be advanced.

A loop that owns its control flow, as a framework's trainer does, runs in a greenlet: a stack of its own on the same
thread, left in `report` and entered again for the next step. A second thread would do as well for the control flow,
but not for what belongs to a thread: torch's dispatch modes, by which a step's operations are counted, its profiler,
the CPU time of the stepping thread, and signal handlers, which frameworks install.
"""

from collections.abc import Callable, Generator, Mapping
from inspect import GEN_CLOSED, getgeneratorstate
from threading import get_ident
from typing import Any, Protocol, TypeAlias

from autotuner.errors import InvalidConfigError, UsageError
from autotuner.metrics import METRICS
from autotuner.plugins import Step
from autotuner.types import Config
from autotuner.workloads.background import Children, loader_workers

Report: TypeAlias = Mapping[str, Any]

_RATES = (name.removeprefix("throughput_") for name in METRICS if name.startswith("throughput_"))
WORK = tuple(rate.removesuffix("_per_s") for rate in _RATES if rate != "steps_per_s")
CURVES = {"loss": "losses", "gradient_norm": "gradient_norms"}  # what a step tells -> what is compared
OTHER_SEEDS = 3  # by which a change of the loss is told from chance
READ_EVERY_STEPS = 16  # a number that lies on a GPU: reading it makes the host wait
_SAY = 'yield or report amounts of work, as in {"samples": 32, "loss": loss}; work is ' + ", ".join(WORK)


class Runner(Protocol):
    """A started object."""

    @property
    def alive(self) -> bool:
        """Whether it can be advanced: a loop that broke cannot go on."""
        ...

    def advance(self, config: Config) -> object:
        """Take a step and return what the user's code says of it."""
        ...

    def outputs(self) -> Mapping[str, Any] | None:
        """The user's own outputs to compare; None where there are none."""
        ...

    def close(self) -> None:
        """Let the user's code clean up."""
        ...


class Loop:
    """A generator that yields after each step; it keeps the configuration that it was started with."""

    def __init__(self, reports: Generator[Report, None, None]) -> None:
        self._reports = reports
        self._steps = 0

    @property
    def alive(self) -> bool:
        """Whether it has neither returned nor raised."""
        return getgeneratorstate(self._reports) != GEN_CLOSED

    def advance(self, config: Config) -> object:
        """Run to the next yield."""
        try:
            report = next(self._reports)
        except StopIteration:
            text = f"the training loop ended after {self._steps} steps"
            hint = "let it run on, it is ended from outside: max_steps=-1, or `while True`"
            raise InvalidConfigError(text, hint) from None
        self._steps += 1
        return report

    def outputs(self) -> None:
        """None: a loop has no other entrance."""

    def close(self) -> None:
        """Raise GeneratorExit where it stands."""
        self._reports.close()


class Instance:
    """An object of the user's class."""

    alive = True

    def __init__(self, instance: Any, *, live: bool) -> None:
        self._instance, self._live = instance, live

    def advance(self, config: Config) -> object:
        """Call `step`, with the configuration if it wants it."""
        return self._instance.step(dict(config)) if self._live else self._instance.step()

    def outputs(self) -> Mapping[str, Any] | None:
        """What its `outputs` returns, as arrays [rows, width]."""
        if not hasattr(self._instance, "outputs"):
            return None
        return {name: _array(value) for name, value in self._instance.outputs().items()}

    @property
    def worst_step(self) -> Callable[[], object] | None:
        """The user's, if there is one."""
        found: Callable[[], object] | None = getattr(self._instance, "worst_step", None)
        return found

    def close(self) -> None:
        """Call `close`, if there is one."""
        if hasattr(self._instance, "close"):
            self._instance.close()


def as_generator(loop: Callable[..., object], *arguments: Any, **keywords: Any) -> Generator[Report, None, None]:
    """A loop that calls `report` after each step, as the generator that it would be if it yielded.

    Closing it raises `greenlet.GreenletExit` in `report`; like GeneratorExit it is no `Exception`, so that it unwinds.
    """
    from greenlet import greenlet

    thread = get_ident()

    def report(**done: Any) -> None:
        if get_ident() != thread:
            raise UsageError("report was called on another thread than the one that runs the training loop")
        running.parent.switch(done)

    def run() -> None:
        loop(*arguments, report=report, **keywords)

    running = greenlet(run)
    try:
        done = running.switch()
        while running:
            yield done
            done = running.switch()
    finally:
        if running:
            running.throw()
        if running:
            raise RuntimeError("the training loop went on after `report` had ended it")


class OpenObject:
    """Steps what `start` starts, and remembers how the first steps from the seed went.

    Args:
        start: Calls the user's object, with this configuration and this offset from the workload's seed.
        config: To start with.
        guard_steps: How many first steps are compared.
        stochastic: Chance plays a part in each of them.
    """

    def __init__(
        self, start: Callable[[Config, int], Runner], config: Config, guard_steps: int, *, stochastic: bool = False
    ) -> None:
        self._start, self._guard_steps, self._stochastic = start, guard_steps, stochastic
        self._children = Children()
        self._begin(config)
        if getattr(self._runner, "worst_step", None):
            self.worst_step = self._worst_step  # offered only where there is one: see plugins.Sized

    def _begin(self, config: Config, seed_offset: int = 0) -> None:
        self._config = dict(config)
        self._steps = 0
        self._curves: dict[str, list[float]] = {name: [] for name in CURVES}
        self._runner: Runner = self._start(config, seed_offset)

    def _running(self, config: Config) -> Runner:
        self._children.go_on()
        if not self._runner.alive:  # a step that could not be counted has broken it
            self._begin(config)
        return self._runner

    def step(self, config: Config) -> Step:
        """One step of the user's loop."""
        report = self._running(config).advance(config)
        self._steps += 1
        recording = self._steps <= self._guard_steps
        step = read(report, waits=recording or self._steps % READ_EVERY_STEPS == 0)
        if recording:
            for name in CURVES.keys() & step.metrics.keys():
                self._curves[name].append(step.metrics[name])
        return step

    def _worst_step(self, config: Config) -> Step:
        runner = self._running(config)
        assert isinstance(runner, Instance)
        assert runner.worst_step is not None
        return read(runner.worst_step(), waits=True)

    def outputs(self, config: Config, reference: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """The user's own outputs, else losses and gradient norms [1, guard_steps] of the first steps from the seed."""
        if (own := self._running(config).outputs()) is not None:
            return own
        if self._curves["loss"] and dict(config) != self._config:
            self._restart(config)  # a live parameter has changed: its curve begins at the seed as well
        curves = self._first_steps(config)
        if not curves["loss"]:
            return {}
        found = {CURVES[name]: _array(curve) for name, curve in curves.items() if curve}
        return found if reference is not None else {**found, **self._other_seeds(config)}

    def _first_steps(self, config: Config) -> dict[str, list[float]]:
        while self._steps < self._guard_steps:
            self.step(config)
        return self._curves

    def _other_seeds(self, config: Config) -> Mapping[str, Any]:
        """Losses and norms of other seeds [seeds, steps]; nothing when the user's code does not heed ours."""
        own, others = self._curves, []
        for offset in range(1, 1 + OTHER_SEEDS):
            self._restart(config, offset)
            others.append(self._first_steps(config))
        self._restart(config)
        self.step(config)  # so that nothing is cold
        self._curves, self._steps = own, self._guard_steps
        losses = [curves["loss"] for curves in others]
        norms = [curves["gradient_norm"] for curves in others if curves["gradient_norm"]]
        heeded = own["loss"] not in losses
        chance = {"_stochastic": _array(self._stochastic)}
        return {**chance, "_other_losses": _array(losses), "_other_norms": _array(norms)} if heeded else {}

    def _restart(self, config: Config, seed_offset: int = 0) -> None:
        self.close()
        self._begin(config, seed_offset)

    uneven = True  # see plugins.Uneven: what lies between two steps is the user's affair

    def cycle_steps(self, config: Config) -> int:
        """See `plugins.Paced`: one batch of each loader process."""
        return max(1, loader_workers(config))

    def idle(self) -> None:
        """See `plugins.Paced`: a loop cannot be told to prepare nothing, but its processes can be stopped."""
        self._children.stop()

    def close(self) -> None:
        """Unwind the user's code."""
        self._children.go_on()  # they are asked to end, and waited for
        self._runner.close()


def read(report: object, *, waits: bool) -> Step:
    """What the user's code says of a step: known amounts are work, other numbers are kept as samples.

    Args:
        report: What came back from the user's code.
        waits: Also read numbers that lie on a GPU, other than work; else they are left out.

    Raises:
        InvalidConfigError: No mapping of numbers, or no amount of work in it.
    """
    if not isinstance(report, Mapping):
        raise InvalidConfigError(f"a step said {_type(report)} and not a dict", _SAY)
    work = {name: _number(name, report[name]) for name in WORK if name in report}
    if not work:
        raise InvalidConfigError(f"a step said no amount of work, only {', '.join(report) or 'nothing'}", _SAY)
    for name, amount in work.items():
        if not amount >= 0:
            raise InvalidConfigError(f"a step said {name}: {amount:g}", "say how much was done, 0 or more")
    rest = {name: value for name, value in report.items() if name not in work and value is not None}
    taken = {name: value for name, value in rest.items() if waits or str(getattr(value, "device", "cpu")) == "cpu"}
    return Step(work, {name: _number(name, value) for name, value in taken.items()})


def _number(name: str, value: Any) -> float:
    try:
        return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RuntimeError):  # the last: a tensor of several
        raise InvalidConfigError(f"a step said {name} is {_type(value)} and not a number") from None


def _type(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _array(value: Any) -> Any:
    """A tensor, array or list as rows [rows, width]; a number format that numpy lacks becomes float32."""
    import numpy as np

    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    return np.atleast_2d(np.asarray(value))
