"""The door to pynvml: a question, its return code and its value. Nobody else imports the binding."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

# Return codes of nvml.h.
SUCCESS, NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND = 0, 3, 4, 6
DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND, FUNCTION_NOT_FOUND = 9, 12, 13
GPU_IS_LOST, RESET_REQUIRED, VERSION_MISMATCH = 15, 16, 18
GONE = frozenset({GPU_IS_LOST, RESET_REQUIRED})

_MEMORY_V2 = 0x02000028  # nvmlMemory_v2: the one that tells what the driver reserves
_VALUE_TYPES = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")  # by nvmlValueType_t
_GPM_VERSION = 1

FieldAnswer = tuple[int, int, float]  # return code, nvmlValueType_t, value


def call(name: str, *arguments: object) -> tuple[int, Any]:
    """Ask NVML: its return code, and the value or None."""
    import pynvml

    try:
        return SUCCESS, getattr(pynvml, name)(*arguments)
    except pynvml.NVMLError as error:
        return int(error.value), None


def ask(name: str, *arguments: object) -> Any:
    """What NVML answers, or None: not supported, not permitted, not in this library, GPU lost."""
    return call(name, *arguments)[1]


def message(code: int) -> str:
    """A return code for people."""
    import pynvml

    return f"{pynvml.NVMLError(code)} (NVML error {code})"


@contextmanager
def session() -> Iterator[int]:
    """NVML initialised for the block; yields the return code, 0 when it can be asked."""
    code, _ = call("nvmlInit")
    try:
        yield code
    finally:
        if code == SUCCESS:
            ask("nvmlShutdown")


@dataclass(slots=True)
class Device:
    """One GPU or MIG slice that can be asked.

    Attributes:
        handle: NVML's.
        card: The GPU that it is a slice of; the handle itself when it is a whole one.
        instance: MIG's GPU instance; None when it is a whole GPU.
        lost: An answer said that the GPU is gone or waits for a reset.
    """

    handle: Any
    card: Any
    instance: int | None = None
    lost: bool = False

    @property
    def is_slice(self) -> bool:
        """Whether only a part of the card belongs to it."""
        return self.instance is not None

    def ask(self, name: str, *arguments: object) -> Any:
        """What NVML answers of the GPU or slice, or None."""
        return self._heard(call(name, self.handle, *arguments))

    def ask_card(self, name: str, *arguments: object) -> Any:
        """What NVML answers of the whole card, or None."""
        return self._heard(call(name, self.card, *arguments))

    def fields(self, *numbers: int) -> dict[int, float]:
        """Those of the field values that this card has."""
        answers = fields(self.card, numbers)[1]
        self.lost |= any(code in GONE for code, _, _ in answers.values())
        return {number: float(value) for number, (code, _, value) in answers.items() if code == SUCCESS}

    def _heard(self, answer: tuple[int, Any]) -> Any:
        self.lost |= answer[0] in GONE
        return answer[1]


@contextmanager
def device(uuid: str) -> Iterator[Device | None]:
    """A GPU or MIG slice, ready to be asked; None if there is no such device now."""
    with session() as code:
        handle = ask("nvmlDeviceGetHandleByUUID", uuid) if code == SUCCESS and uuid else None
        if handle is None:
            yield None
        elif not uuid.startswith("MIG-"):
            yield Device(handle, handle)
        else:
            card = ask("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle) or handle
            yield Device(handle, card, ask("nvmlDeviceGetGpuInstanceId", handle) or 0)


def fields(handle: Any, numbers: tuple[int, ...]) -> tuple[int, dict[int, FieldAnswer]]:
    """The return code of the whole question, and the answer for each field; a field has a code of its own."""
    code, values = call("nvmlDeviceGetFieldValues", handle, list(numbers))
    if code != SUCCESS:
        return code, dict.fromkeys(numbers, (code, 0, 0))
    return code, {value.fieldId: _field(value) for value in values}


def _field(value: Any) -> FieldAnswer:
    if value.nvmlReturn != SUCCESS:
        return value.nvmlReturn, 0, 0
    if value.valueType >= len(_VALUE_TYPES):  # of a driver that is newer than this list
        return NOT_SUPPORTED, 0, 0
    return SUCCESS, value.valueType, getattr(value.value, _VALUE_TYPES[value.valueType])


def memory_v2(handle: Any) -> tuple[int, Any]:
    """Memory in use without what the driver reserves, as a return code and NVML's structure."""
    return call("nvmlDeviceGetMemoryInfo", handle, _MEMORY_V2)


def gpm_request(first: Any, second: Any, metrics: tuple[int, ...]) -> Any:
    """NVML's structure that asks for GPM metrics between two samples; big, so worth keeping."""
    import pynvml

    request = pynvml.c_nvmlGpmMetricsGet_t()
    request.version, request.numMetrics = _GPM_VERSION, len(metrics)
    request.sample1, request.sample2 = first, second
    for place, metric in enumerate(metrics):
        request.metrics[place].metricId = metric
    return request
