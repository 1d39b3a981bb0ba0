"""The times of a profile as named parts of a whole: what the terminal and the page both show."""

import math
from dataclasses import dataclass

from autotuner.analyze.profile import Profile
from autotuner.analyze.trace import DeviceTime, HostTime
from autotuner.report.text import describe, factor, one_line, percent


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a whole time.

    Attributes:
        kind: The colour it is drawn in.
        label: What it is.
        seconds: Of all profiled steps.
        text: What it means, for a person.
        inner: A part of the part above it.
    """

    kind: str
    label: str
    seconds: float
    text: str
    inner: bool = False


def host_parts(host: HostTime) -> list[Part]:
    """The main thread's time; what did not happen is left out."""
    parts = [
        Part("operator", "operators", host.operators_s, "computing, or launching work"),
        Part("python", "Python", host.python_s, "between operators, or unseen"),
        Part("other", "other threads", host.other_threads_s, "autograd's operators, say"),
        Part("input", "input", host.input_s, "in next() of a DataLoader"),
        Part("sync", "device wait", host.device_wait_s, "calls that wait for the GPU"),
        Part("compile", "compilation", host.compile_s, "torch.compile at work"),
    ]
    return [part for part in parts if part.seconds > 0]


def device_parts(device: DeviceTime) -> list[Part]:
    """The device's time; the causes of idleness are inner parts of it."""
    unsure = " (unreliable: CUDA graphs)" if device.graphs else ""
    parts = [
        Part("compute", "compute", device.compute_s, "kernels"),
        Part("communication", "communication", device.communication_s, "not hidden by kernels"),
        Part("copy", "copies", device.copy_s, "not hidden by anything"),
        Part("idle", "idle", device.idle_s, f"nothing runs{unsure}"),
    ]
    if not device.graphs:
        parts += [
            Part("idle", "host wait", device.idle_host_s, "nothing was launched in time", inner=True),
            Part("idle", "kernel gaps", device.idle_kernel_s, "between queued kernels", inner=True),
            Part("idle", "other", device.idle_other_s, "other streams, slow starts", inner=True),
        ]
    return [part for part in parts if part.seconds > 0]


def title(found: Profile) -> str:
    """`inference, batch_size=8`: the study and what differs from its baseline."""
    changed = {name: value for name, value in found.config.items() if found.baseline.get(name) != value}
    return f"{found.name}, {one_line(describe(changed))}"


MUCH_SLOWER = 2.0


def caution(found: Profile) -> str:
    """What to keep in mind when the profiler has changed what it looks at; empty when it has not, much."""
    if found.slowdown_ratio <= MUCH_SLOWER:
        return ""
    return (
        f"torch.profiler made a step {factor(found.slowdown_ratio)} as long: it adds microseconds to every operator, so"
        " that small ones look larger than they are"
    )


def precision(found: Profile) -> str:
    """` ±1.2 %`; empty when there were too few blocks to say."""
    ratio = found.step_precision_ratio
    return f" ±{percent(ratio)}" if math.isfinite(ratio) else ""


def throughput(found: Profile) -> tuple[str, float] | None:
    """The most telling rate: tokens before samples before requests before steps."""
    for name in ("tokens", "samples", "requests", "steps"):
        if rate := found.throughputs.get(f"throughput_{name}_per_s"):
            return name, rate
    return None
