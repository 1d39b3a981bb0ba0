"""The contract of a workload, as checks that any test runner can call."""

import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from autotuner.plugins import Step, Workload
from autotuner.testing.options import check_options
from autotuner.types import Binding, Config

PRELOAD_LIMIT_S = 300.0
_PRELOAD = """
import importlib, json, os, sys
for module in json.loads(sys.argv[1]):
    importlib.import_module(module)
links = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.islink(entry.path)]
sys.exit(", ".join(link for link in links if link.startswith("/dev/nvidia-uvm")) or 0)
"""


def check_workload(
    workload: Workload, configs: Sequence[Config], device: str = "cpu", tolerance_ratio: float = 1e-4
) -> None:
    """Check everything that the loop relies on; opens the workload a few times.

    Args:
        workload: Small, with any options.
        configs: The baseline first. Every live parameter of the workload's traits is changed alone by one of them.
        device: "cpu" or "cuda".
        tolerance_ratio: Largest relative deviation between outputs that only the way to a live value tells apart.

    Raises:
        AssertionError: It breaks the contract; says how.
        AutotuneError: A configuration cannot run here.
    """
    check_options(workload, "workloads")
    check_preload(workload)
    workload.check()
    assert workload.identity() == type(workload).model_validate(workload.model_dump(mode="json")).identity(), (
        "equal options are one identity"
    )
    for config in configs:
        check_steps(workload, config, device)
    check_outputs(workload, configs, device)
    check_live(workload, configs, device, tolerance_ratio)
    check_relief(workload, configs, device)


def check_preload(workload: Workload) -> None:
    """Check that the modules for the fork server import, in a fresh interpreter, and leave the GPU alone."""
    argv = [sys.executable, "-c", _PRELOAD, json.dumps(workload.preload())]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PRELOAD_LIMIT_S, check=False)
    last = (done.stderr.strip().splitlines() or [""])[-1]
    assert done.returncode == 0, f"preloading must import, and open no GPU: {last}"


def check_steps(workload: Workload, config: Config, device: str) -> None:
    """Check that it opens and closes twice in one process, and that steps say how much they did."""
    works = []
    for _ in range(2):
        with workload.open(config, device) as opened:
            works.append([_work_of(opened.step(config)) for _ in range(3)])
    assert works[0] == works[1], f"the same inputs mean the same work, not {works}"


def _work_of(step: Step) -> Mapping[str, float]:
    assert step.work, "a step must say how much work it did"
    for name, amount in step.work.items():
        assert math.isfinite(amount), f"work {name} is {amount}"
        assert amount >= 0, f"work {name} is {amount}"
    for name, value in step.metrics.items():
        assert math.isfinite(value), f"metric {name} is {value}"
    return step.work


def check_outputs(workload: Workload, configs: Sequence[Config], device: str) -> None:
    """Check that outputs are the same every time, and comparable between configurations."""
    baseline = configs[0]
    reference = fresh_outputs(workload, baseline, device, None)
    _assert_equal(reference, fresh_outputs(workload, baseline, device, None), "outputs must be the same every time")
    again = fresh_outputs(workload, baseline, device, reference)
    _assert_equal(reference, again, "the baseline must follow its own reference exactly")
    for config in configs[1:]:
        found = fresh_outputs(workload, config, device, reference)
        shapes, expected = ({name: source[name].shape for name in _compared(source)} for source in (found, reference))
        assert shapes == expected, f"outputs of {dict(config)} have shapes {shapes}, the baseline's {expected}"


def check_live(workload: Workload, configs: Sequence[Config], device: str, tolerance_ratio: float) -> None:
    """Check that an opened workload takes over each live value, and then does what a freshly opened one does."""
    baseline = configs[0]
    live = {name for name, trait in workload.traits.items() if trait.live}
    reference = fresh_outputs(workload, baseline, device, None)
    seen = set()
    for config in configs[1:]:
        changed = {name for name in {*config, *baseline} if config.get(name) != baseline.get(name)}
        if len(changed) != 1 or not changed <= live:
            continue
        seen |= changed
        with workload.open(baseline, device) as opened:
            opened.step(baseline)
            work, outputs = opened.step(config).work, opened.outputs(config, reference)
        with workload.open(config, device) as opened:
            fresh_work, fresh = opened.step(config).work, opened.outputs(config, reference)
        assert work == fresh_work, f"live {changed}: {work} after the change, {fresh_work} when opened with it"
        for name in _compared(outputs):  # what hangs on the first steps cannot be told after a change
            _assert_near(outputs[name], fresh[name], tolerance_ratio, f"live {changed}: {name}")
    assert seen == live, f"give a configuration that changes only {', '.join(sorted(live - seen))}, which is live"


def check_relief(workload: Workload, configs: Sequence[Config], device: str) -> None:
    """Check that every relief says what is left, can be stepped, and leaves no trace in the outputs."""
    reference = fresh_outputs(workload, configs[0], device, None)
    for config in configs:
        with workload.open(config, device) as opened:
            relieve = getattr(opened, "relieve", lambda resource, config: None)
            before = opened.outputs(config, reference)
            for resource in Binding:
                relief = relieve(resource.value, config)
                if relief is None:
                    continue
                with relief as left:
                    assert 0 <= left <= 1, f"relief of {resource} leaves {left} of the demand"
                    opened.step(config)
                after = opened.outputs(config, reference)
                _assert_equal(before, after, f"after relief of {resource} outputs are as before")


def fresh_outputs(
    workload: Workload, config: Config, device: str, reference: Mapping[str, Any] | None
) -> Mapping[str, Any]:
    """The outputs of a freshly opened workload, which must be finite."""
    import numpy as np

    with workload.open(config, device) as opened:
        outputs = opened.outputs(config, reference)
    for name in _compared(outputs):
        assert np.isfinite(outputs[name]).all(), f"output {name} of {dict(config)} is not finite"
        assert outputs[name].ndim == 2, f"output {name} must be [rows, width], not {outputs[name].shape}"
    return outputs


def _compared(outputs: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in outputs if not name.startswith("_"))


def _assert_equal(one: Mapping[str, Any], other: Mapping[str, Any], rule: str) -> None:
    import numpy as np

    assert _compared(one) == _compared(other), f"{rule}: names differ"
    for name in _compared(one):
        assert np.array_equal(one[name], other[name]), f"{rule}: {name} differs"


def _assert_near(one: Any, other: Any, tolerance_ratio: float, rule: str) -> None:
    import numpy as np

    assert one.shape == other.shape, f"{rule} has shape {one.shape}, freshly opened {other.shape}"
    error = float(np.linalg.norm(one - other) / max(float(np.linalg.norm(other)), 1e-30))
    assert error <= tolerance_ratio, f"{rule} is off by {error:.2g} of what a freshly opened one gives"
