"""The cases: which parts make which truth.

A composed case names the shares of a step that its parts shall have; the harness measures one unit of each part on the
machine at hand and chooses the amounts, so that the truth holds everywhere. What depends on the machine itself (is this
normalisation bound by memory here?) is settled by a measurement of its own, see `settle`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from autotuner.types import Binding, Value
from labelled.part import PartSpec

INPUT, HOST, MEMORY, COMPUTE = Binding.INPUT, Binding.HOST_LAUNCH, Binding.MEMORY_BANDWIDTH, Binding.COMPUTE
COMMUNICATION, CAPACITY, UNKNOWN, INVALID = Binding.COMMUNICATION, Binding.CAPACITY, Binding.UNKNOWN, Binding.INVALID


@dataclass(frozen=True, slots=True)
class Case:
    """A labelled workload.

    Attributes:
        name: Unique.
        group: What `--only` chooses.
        truth: Right answers; more than one where nobody could say which is righter, the first is what it counts as.
        parts: What a step does.
        shares: Of the step, one a part; empty when `parts` has the amounts already.
        hogs: Foreign processes that burn the cores meanwhile.
        batch: Sizes that are measured, the last of them diagnosed; for `capacity`.
        room_ratio: The memory limit, relative to the peak of the last batch; 0: no limit.
        next_fails: The batch after the last is in the record as out of memory.
        settled_by_residency: Whether memory binds it is measured: does the same on resident data take under 2/3?
    """

    name: str
    group: str
    truth: tuple[Binding, ...]
    parts: tuple[PartSpec, ...]
    shares: tuple[float, ...] = ()
    hogs: int = 0
    batch: tuple[int, ...] = (1,)
    room_ratio: float = 0.0
    next_fails: bool = False
    settled_by_residency: bool = False


def part(what: str, amount: int = 1, /, **options: Value) -> PartSpec:
    return PartSpec(what=what, amount=amount, options=options)


# The ingredients of composed cases, each in its smallest unit.
SLEEPING = part("loader", what="sleeping")
DECODING = part("loader", what="decoding")
TINY = part("calls", 50, what="adds")
STREAM = part("stream", what="triad", elements=2**18)
PRODUCT = part("matmul", n=384, sets=1)
SMALL_PRODUCT = part("matmul", n=256, sets=1)
REDUCE = part("collective", what="all_reduce", delay_s=1e-3)
IDLE = part("odd", what="sleep")


def cases(device: str = "cpu") -> tuple[Case, ...]:
    """All of them, or those that make sense on a GPU."""
    if device != "cpu":
        from labelled.gpu_cases import gpu_cases

        return gpu_cases()
    found = (
        *_inputs(), *_hosts(), *_computes(), *_memories(), *_communications(), *_capacities(), *_mixtures(), *_halves(),
        *_unknowns(), *_invalids(),
    )  # fmt: skip
    assert len({case.name for case in found}) == len(found)
    return found


SIZES = frozenset({"n", "elements", "length", "height", "picks", "unit_s", "delay_s", "rate_bytes_per_s"})


def scaled(case: Case, factor: float) -> Case:
    """The same case in another size: nobody has looked at it when the thresholds were chosen."""

    def resize(spec: PartSpec) -> PartSpec:
        changed = {
            name: value * factor if isinstance(value, float) else max(16, round(value * factor / 16) * 16)
            for name, value in spec.options.items()
            if name in SIZES and isinstance(value, int | float)
        }
        return spec.model_copy(update={"options": {**spec.options, **changed}})

    return replace(case, parts=tuple(resize(spec) for spec in case.parts))


def _inputs() -> Iterator[Case]:
    loaders = {
        "sleeping": SLEEPING,
        "sleeping, 1 worker": part("loader", 4, what="sleeping", workers=1, unit_s=4e-3),
        "sleeping, 2 workers": part("loader", 4, what="sleeping", workers=2, unit_s=8e-3),
        "decoding": DECODING,
        "decoding, 1 worker": part("loader", 8, what="decoding", workers=1),
        "decoding, 2 workers": part("loader", 16, what="decoding", workers=2),
        "parsing in Python": part("loader", what="parsing"),
        "a slow disk": part("loader", what="trickling"),
        "many pieces collated": part("loader", what="scattered"),
    }
    for name, loader in loaders.items():
        shares = () if loader.options.get("workers") else (0.85, 0.15)
        rest = part("matmul", n=256, sets=1) if shares else part("matmul", 2, n=256, sets=1)
        yield Case(f"input: {name}", "input", (INPUT,), (loader, rest), shares)


def _hosts() -> Iterator[Case]:
    amounts = {
        "adds": 400, "small_products": 1000, "narrow_layers": 80, "modules": 60, "recurrent_steps": 120,
        "sampling": 120, "elements": 200, "python": 200, "views": 400, "optimizer": 200,
    }  # fmt: skip
    for what, amount in amounts.items():
        yield Case(f"host: {what.replace('_', ' ')}", "host_launch", (HOST,), (part("calls", amount, what=what),))


def _computes() -> Iterator[Case]:
    loads = {
        "matmul 384": part("matmul", 4, n=384, sets=2),
        "matmul 768": part("matmul", n=768, sets=2),
        "matmul 1024": part("matmul", n=1024, sets=1),
        "matmul 2048": part("matmul", n=2048, sets=1),
        "matmul float64": part("matmul", n=512, sets=2, dtype="float64"),
        "matmul bfloat16": part("matmul", n=256, sets=1, dtype="bfloat16"),
        "batched matmul": part("matmul", 3, n=128, sets=2, batch=32),
        "conv2d": part("conv2d"),
        "conv2d, deep": part("conv2d", channels=128, size=28),
        "attention, 1024 tokens": part("attention", length=1024),
        "attention, 2048 tokens": part("attention", length=2048, heads=2),
        "perceptron, 256 rows": part("dense"),
        "encoder prefill": part("encoder"),
    }
    for name, load in loads.items():
        yield Case(f"compute: {name}", "compute", (COMPUTE,), (load,))


def _memories() -> Iterator[Case]:
    for what in ("copy", "triad", "scale", "chain", "dot", "sum", "lerp", "where"):
        yield Case(f"memory: {what}", "memory_bandwidth", (MEMORY,), (part("stream", 3, what=what),))
    loads = {
        "decode, 1 row": part("dense", rows=1, layers=32),
        "decode, 1 wide row": part("dense", rows=1, width=2048, layers=12),
        "decode in bfloat16": part("dense", 2, rows=1, layers=64, dtype="bfloat16"),
        "embedding gather": part("gather", 3),
        "softmax": part("rows", what="softmax"),
        "layer norm": part("rows", what="layer_norm"),
    }
    for name, load in loads.items():
        settled = name in ("decode in bfloat16", "softmax", "layer norm", "decode, 1 wide row")
        yield Case(f"memory: {name}", "memory_bandwidth", (MEMORY,), (load,), settled_by_residency=settled)


def _communications() -> Iterator[Case]:
    links = {
        "all-reduce, late peer": REDUCE,
        "all-reduce, 4 MiB": part("collective", what="all_reduce", delay_s=0.0, floats=2**20),
        "all-gather, late peer": part("collective", what="all_gather", delay_s=1e-3),
        "broadcast, late peer": part("collective", what="broadcast", delay_s=1e-3),
        "parameter server, long line": part("parameter_sync", delay_s=2e-3),
        "parameter server, thin line": part("parameter_sync", delay_s=0.0, size_bytes=2**17, rate_bytes_per_s=1e8),
    }
    for name, link in links.items():
        yield Case(f"communication: {name}", "communication", (COMMUNICATION,), (link, SMALL_PRODUCT), (0.8, 0.2))


def _capacities() -> Iterator[Case]:
    gains = part("batch", item_bytes=2**24)
    fixed = part("calls", 400, what="adds")
    weights = part("dense", rows=1, layers=32)
    yield Case(
        "capacity: launches, near the limit", "capacity", (CAPACITY,), (gains, fixed), batch=(2, 4, 8), room_ratio=1.05
    )
    yield Case(
        "capacity: weights, near the limit", "capacity", (CAPACITY,), (gains, weights), batch=(2, 4, 8), room_ratio=1.04
    )
    yield Case(
        "capacity: launches, next to a failure",
        "capacity",
        (CAPACITY,),
        (gains, fixed),
        batch=(2, 4, 8),
        next_fails=True,
    )
    yield Case(
        "capacity: weights, next to a failure",
        "capacity",
        (CAPACITY,),
        (gains, weights),
        batch=(2, 4, 8),
        next_fails=True,
    )
    # near the limit as well, but a larger batch would gain nothing
    full = part("batch", item_bytes=2**24, products=512)
    yield Case(
        "capacity: full, but arithmetic binds", "capacity", (COMPUTE,), (full,), batch=(2, 4, 8), room_ratio=1.05
    )
    yield Case("capacity: half full", "capacity", (HOST,), (gains, fixed), batch=(1, 2, 4), room_ratio=2.0)


def _mixtures() -> Iterator[Case]:
    """70 % of one, 30 % of another: the larger binds."""
    kinds = {
        "input": (SLEEPING, INPUT), "decoding": (DECODING, INPUT), "host": (TINY, HOST), "memory": (STREAM, MEMORY),
        "compute": (PRODUCT, COMPUTE), "link": (REDUCE, COMMUNICATION),
    }  # fmt: skip
    pairs = (
        ("input", "compute"), ("compute", "input"), ("link", "compute"), ("compute", "link"), ("memory", "compute"),
        ("compute", "memory"), ("host", "memory"), ("memory", "host"), ("host", "compute"), ("compute", "host"),
        ("decoding", "memory"), ("memory", "input"), ("link", "host"), ("host", "link"),
    )  # fmt: skip
    for larger, smaller in pairs:
        yield Case(
            f"70/30: {larger}, {smaller}", "mixture", (kinds[larger][1],), (kinds[larger][0], kinds[smaller][0]),
            (0.7, 0.3),
        )  # fmt: skip


def _halves() -> Iterator[Case]:
    """45 % each, and 10 % asleep: nobody binds alone; naming either is no mistake, anything else is."""
    pairs = (
        ((SLEEPING, INPUT), (PRODUCT, COMPUTE)), ((STREAM, MEMORY), (PRODUCT, COMPUTE)),
        ((TINY, HOST), (STREAM, MEMORY)), ((REDUCE, COMMUNICATION), (PRODUCT, COMPUTE)),
        ((TINY, HOST), (SLEEPING, INPUT)), ((REDUCE, COMMUNICATION), (STREAM, MEMORY)),
    )  # fmt: skip
    for (one, first), (two, second) in pairs:
        yield Case(f"45/45: {first}, {second}", "halves", (UNKNOWN, first, second), (one, two, IDLE), (0.45, 0.45, 0.1))


def _unknowns() -> Iterator[Case]:
    amounts = {
        "sleep": 10,
        "lock": 5,
        "command": 5,
        "sync_to_disk": 6,
        "sorting": 1,
        "unique": 4,
        "search": 2,
        "scan": 2,
    }
    for what, amount in amounts.items():
        yield Case(f"unknown: {what.replace('_', ' ')}", "unknown", (UNKNOWN,), (part("odd", amount, what=what),))


def _invalids() -> Iterator[Case]:
    yield Case("invalid: a product among hogs", "invalid", (INVALID,), (part("matmul", n=1024, sets=1),), hogs=2)
    yield Case("invalid: a stream among hogs", "invalid", (INVALID,), (part("stream", 3, what="triad"),), hogs=2)
    yield Case(
        "invalid: small operations among hogs", "invalid", (INVALID,), (part("calls", 400, what="adds"),), hogs=2
    )
    yield Case("invalid: a decoder among hogs", "invalid", (INVALID,), (part("loader", 16, what="decoding"),), hogs=2)
