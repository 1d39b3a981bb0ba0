"""NVIDIA GPUs through NVML and GPM: what there is, who uses it, what they did during a window. The only door to pynvml.

NVML answers for each signal on its own: a signal that this GPU, driver, MIG slice or container does not offer is
absent, and `conditions` says why. A GPU that is lost in the middle leaves `gpu_lost`. Nothing here raises because of a
device.

NVML counts GPUs in the order of the PCI bus, CUDA only with CUDA_DEVICE_ORDER=PCI_BUS_ID: name unlike GPUs by UUID.
"""

from autotuner.monitor.gpu.conditions import Condition, conditions, state
from autotuner.monitor.gpu.devices import (
    Gpu,
    gpus,
    made_on_replay,
    memory_bytes_of,
    processes,
    used_memory_bytes,
    visible_gpu,
    visible_gpus,
    visible_uuid,
)  # fmt: skip
from autotuner.monitor.gpu.probe import SAMPLING_PERIOD_S, GpuProbe, GpuReader, throttling
from autotuner.monitor.gpu.signals import MIN_ENERGY_WINDOW_S
from autotuner.monitor.gpu.trace import TRACE_FORMAT, record

__all__ = [
    "Condition", "Gpu", "GpuProbe", "GpuReader", "MIN_ENERGY_WINDOW_S", "SAMPLING_PERIOD_S", "TRACE_FORMAT",
    "conditions", "gpus", "made_on_replay", "memory_bytes_of", "processes", "record", "state", "throttling",
    "used_memory_bytes", "visible_gpu", "visible_gpus", "visible_uuid",
]  # fmt: skip
