"""The same workload under torch.profiler, for the opponent: what its trace shows, as the metrics of a step."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import Any, Literal

from autotuner.metrics import median
from autotuner.plugins import OpenWorkload, Step
from autotuner.types import Config, Metrics
from labelled.opponent import COMMUNICATION, ELIGIBLE, Profile, Ranges, exclusive_ratios
from labelled.workload import Labelled


class Profiled(Labelled):
    """Every step is traced."""

    kind: Literal["profiled"] = "profiled"  # type: ignore[assignment]

    @contextmanager
    def open(self, config: Config, device: str) -> Iterator[OpenWorkload]:
        """The labelled workload, wrapped."""
        with super().open(config, device) as opened:
            yield OpenProfiled(opened, device)


class OpenProfiled:
    """Traces one step of another workload, the second; however often it is asked."""

    def __init__(self, opened: OpenWorkload, device: str) -> None:
        self._opened, self._device = opened, device
        self._seen: Metrics = {}

    def step(self, config: Config) -> Step:
        """What the trace showed."""
        if not self._seen:
            self._opened.step(config)
            self._seen = self._trace(config)
        return Step({}, self._seen)

    def _trace(self, config: Config) -> Metrics:
        """One step under the profiler."""
        from torch.autograd import DeviceType
        from torch.profiler import ProfilerActivity, profile, record_function

        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if self._device != "cpu" else [])
        with profile(activities=activities) as traced, record_function("labelled step"):
            self._opened.step(config)
        roles: dict[str, Ranges] = {"kernel": [], "communication": [], "dataloader": [], "operators": []}
        begin = end = 0.0
        eligible = False
        for event in traced.events():
            times = (float(event.time_range.start), float(event.time_range.end))
            if event.name == "labelled step" and event.device_type == DeviceType.CPU:
                begin, end = times
                continue
            roles[_role(event.name, on_device=event.device_type != DeviceType.CPU)].append(times)
            eligible = eligible or event.name in ELIGIBLE
        ratios = exclusive_ratios(roles, begin, end)
        return {f"profile_{role}_ratio": ratio for role, ratio in ratios.items()} | {
            "profile_eligible": float(eligible)
        }

    def outputs(self, config: Config, reference: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Nothing to compare."""
        return {}


def profile_of(
    traced: Mapping[str, Sequence[float]], measured: Mapping[str, Sequence[float]], limit_bytes: float
) -> Profile:
    """The shares that a trace shows, and what the untraced measurement says of waiting and memory."""
    seen = {name: max(values) for name, values in traced.items() if name.startswith("profile_")}
    step_s = median(measured["block_step_s"])
    waited = {name: fmean(measured.get(name, (0.0,))) / step_s for name in ("input_wait_s", "communication_s")}
    memory_ratio = max(measured["peak_memory_bytes"]) / limit_bytes
    on_gpu = seen["profile_kernel_ratio"] > 0
    return Profile(
        seen["profile_dataloader_ratio"],
        seen["profile_communication_ratio"],
        seen["profile_kernel_ratio"] if on_gpu else None,
        seen["profile_eligible"] if on_gpu else None,
        memory_ratio if on_gpu else None,
        seen["profile_operators_ratio"],
        bool(seen["profile_eligible"]),
        memory_ratio,
        waited["input_wait_s"],
        waited["communication_s"],
    )


def _role(name: str, *, on_device: bool) -> str:
    if on_device:
        return "kernel"
    if name in COMMUNICATION:
        return "communication"
    if name.startswith("enumerate(DataLoader)#") and name.endswith(".__next__"):
        return "dataloader"
    return "operators"
