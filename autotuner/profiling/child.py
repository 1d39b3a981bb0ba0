"""The profiled process: opens the workload as a trial would, and runs its steps for one profiler after the other.

`python -m autotuner.profiling.child REQUEST.json`; nsys and ncu start it in the same way.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import PrivateAttr, SerializeAsAny

from autotuner.analyze.trace import STEP, STEPS
from autotuner.metrics import median
from autotuner.monitor.recorder import Recorder
from autotuner.monitor.torch import synchronise
from autotuner.monitor.torch.profiler import capture_range, intraop_threads, record_steps
from autotuner.plugins import Job, OpenWorkload, Workload
from autotuner.profiling import cpu, sampler
from autotuner.profiling.request import STACKS, TRACE, Answer, Request
from autotuner.spec import StudySpec, restore
from autotuner.types import Config, Failure, Measurement

_QUICK_S = 0.5  # of measurement, where only the warm-up matters


class Watched(Workload):
    """Another workload, unchanged; it only remembers what it opened, so that a profiler can run steps on it."""

    kind: Literal["watched"] = "watched"
    inner: SerializeAsAny[Workload]
    _opened: list[OpenWorkload] = PrivateAttr(default_factory=list)

    @contextmanager
    def open(self, config: Config, device: str) -> Iterator[OpenWorkload]:
        """Open the other."""
        with self.inner.open(config, device) as opened:
            self._opened.append(opened)
            yield opened

    @property
    def opened(self) -> OpenWorkload:
        """What was opened last."""
        return self._opened[-1]


def serve(request: Request) -> Answer:
    """Do what is asked. The recorder opens, warms up and measures, exactly as it does for a trial."""
    spec = restore(request.study)
    workload = Watched(inner=spec.workload)
    job = Job(workload, request.config, spec.protocol, probes=spec.probes, device=spec.device)
    if request.mode == "range":
        quick = replace(spec.protocol, max_measure_s=_QUICK_S, min_measure_s=0.0, contended_retries=0)
        job = replace(job, protocol=quick, probes=())
    with Recorder() as recorder:
        match recorder.measure(job):
            case Failure() as failure:
                return Answer(failure=(str(failure.kind), failure.message))
            case Measurement() as measured:
                pass

        def step() -> None:
            workload.opened.step(request.config)

        if request.mode == "range":
            with capture_range(spec.device):
                run_steps(step, request.steps, spec.device)
            return Answer()
        return observe(request, spec, step, measured)


def run_steps(step: Callable[[], object], steps: int, device: str) -> None:
    """Run them and wait for the device."""
    for _ in range(steps):
        step()
    synchronise(device)


def observe(request: Request, spec: StudySpec, step: Callable[[], None], measured: Measurement) -> Answer:
    """Record under torch.profiler, then sample from outside."""
    folder = Path(request.folder)
    profiled_s = record_steps(step, request.steps, spec.device, folder / TRACE, STEPS, STEP)
    with cpu.watched() as use:
        note = sampler.sample(step, request.sample_s, request.samples_per_s, folder / STACKS, use.ignored)
        if note:  # nobody sampled; the threads are still worth a look
            began_s = time.perf_counter()
            while time.perf_counter() - began_s < min(1.0, request.sample_s):
                step()
        synchronise(spec.device)
    rates = {name: median(v) for name, v in measured.samples.items() if name.startswith("throughput_")}
    return Answer(
        block_step_s=measured.samples["block_step_s"],
        throughputs=rates,
        contended=measured.reason if measured.contended else "",
        profiled_s=profiled_s,
        threads=use.threads,
        workers_ratio=use.workers_ratio,
        intraop_threads=intraop_threads(),
        note=note,
    )


def main() -> None:
    """Read the request, write the answer."""
    request = Request.load(Path(sys.argv[1]))
    serve(request).save(request.answer_path)


if __name__ == "__main__":
    main()
