"""The fingerprint of hardware and software that a measurement is good for; no host name, user name or path in it.

Every process must find the same: versions come from package metadata and files, whether or not a process has imported
torch or transformers, and nothing is imported for it.
"""

import hashlib
import json
import math
import os
import platform
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from autotuner.monitor.gpu import visible_gpu
from autotuner.monitor.host import available_cores

_DISTRIBUTIONS = {
    "torch": "torch",
    "transformers": "transformers",
    "triton": "triton",
    "numpy": "numpy",
    "autotune": "autotune-loop",
}


def fingerprint(device: str, identity: Mapping[str, str]) -> dict[str, str]:
    """What a measurement depends on, by name; what is not there is left out.

    Args:
        device: "cpu", or "cuda" with an ordinal if there are several; on a CPU no GPU is named.
        identity: What is tuned, as `Workload.identity` tells: `model`, `model_hash`.

    Returns:
        `gpu`, `gpu_memory_bytes`, `driver`, `cpu`, `cores`, `memory_bytes` (in whole GiB, for kernels keep some for
        themselves), `kernel`, `python`, `cuda` (that torch was built with), the versions of torch, transformers,
        triton, numpy and autotune, and `identity`. Takes under a millisecond after the first call.
    """
    gpu = _gpu(device, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return gpu | _host() | {"cores": str(available_cores())} | _versions() | dict(identity)


@cache
def _gpu(device: str, visible: str | None) -> dict[str, str]:
    """The GPU of `device`; `visible` is only there to ask again when it changes."""
    found = visible_gpu(device)
    if found is None:
        return {}
    if found.uuid.startswith("MIG-"):
        return {"gpu": found.name}
    return {"gpu": found.name, "gpu_memory_bytes": str(found.memory_bytes), "driver": found.driver}


@cache
def _host() -> dict[str, str]:
    model = re.search(r"^model name\s*:\s*(.+)$", _text("/proc/cpuinfo"), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB$", _text("/proc/meminfo"), re.MULTILINE)
    return {
        "cpu": model[1].strip() if model else platform.machine(),
        **({"memory_bytes": str(math.ceil(int(memory[1]) / 2**20) * 2**30)} if memory else {}),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _text(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


@cache
def _versions() -> dict[str, str]:
    found = {}
    for name, distribution in _DISTRIBUTIONS.items():
        try:
            found[name] = version(distribution)
        except PackageNotFoundError:
            continue
    return found | _cuda()


def _cuda() -> dict[str, str]:
    """The CUDA that torch was built with, from the text of `torch/version.py`: importing it takes seconds."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return {}
    found = re.search(r"^cuda\b.*=\s*['\"]([\d.]+)['\"]", _text(str(Path(spec.origin).with_name("version.py"))), re.M)
    return {"cuda": found[1]} if found else {}


def machine_line(environment: Mapping[str, str]) -> str:
    """A fingerprint for people.

    >>> machine_line({"cpu": "AMD EPYC", "cores": "2", "memory_bytes": "25769803776", "torch": "2.13.0+cpu"})
    '2 x AMD EPYC cores, 24 GiB, no GPU, torch 2.13.0'
    """
    parts = [f"{environment.get('cores', '?')} x {environment.get('cpu', 'unknown')} cores"]
    if "memory_bytes" in environment:
        parts.append(f"{int(environment['memory_bytes']) / 2**30:.0f} GiB")
    parts.append(environment.get("gpu", "no GPU"))
    parts += [f"{n} {environment[n].partition('+')[0]}" for n in ("torch", "transformers") if n in environment]
    return ", ".join(parts)


def environment_key(environment: Mapping[str, str]) -> str:
    """Equal for environments whose measurements may be compared: 16 hexadecimal digits over everything in them.

    >>> environment_key({"gpu": "A", "torch": "2"}) == environment_key({"torch": "2", "gpu": "A"})
    True
    """
    return hashlib.sha256(json.dumps(dict(environment), sort_keys=True).encode()).hexdigest()[:16]
