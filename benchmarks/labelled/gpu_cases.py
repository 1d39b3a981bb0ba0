"""The cases for a GPU: the same parts in sizes that keep a data-centre GPU busy for milliseconds a step."""

from collections.abc import Iterator

from labelled.cases import (
    CAPACITY,
    COMMUNICATION,
    COMPUTE,
    HOST,
    INPUT,
    MEMORY,
    REDUCE,
    SLEEPING,
    UNKNOWN,
    Case,
    part,
)  # fmt: skip

PRODUCT = part("matmul", n=4096, sets=1, dtype="bfloat16")
STREAM = part("stream", what="triad", elements=2**26, sets=2)
TINY = part("calls", 50, what="narrow_layers")


def gpu_cases() -> tuple[Case, ...]:
    """Input, launches, memory, arithmetic, capacity, mixtures and what is none of these."""
    return (*_pure(), *_capacities(), *_mixtures(), *_unknowns())


def _pure() -> Iterator[Case]:
    for name, loader in {
        "sleeping": SLEEPING,
        "decoding": part("loader", what="decoding"),
        "parsing in Python": part("loader", what="parsing"),
    }.items():
        yield Case(f"input: {name}", "input", (INPUT,), (loader, PRODUCT), (0.85, 0.15))
    for what in (
        "adds",
        "small_products",
        "narrow_layers",
        "modules",
        "recurrent_steps",
        "sampling",
        "views",
        "optimizer",
    ):
        yield Case(f"host: {what.replace('_', ' ')}", "host_launch", (HOST,), (part("calls", 100, what=what),))
    for name, load in {
        "matmul bfloat16": part("matmul", n=8192, sets=1, dtype="bfloat16"),
        "matmul float32": part("matmul", n=4096, sets=1),
        "batched matmul": part("matmul", 4, n=1024, sets=2, batch=32, dtype="bfloat16"),
        "perceptron, 8192 rows": part("dense", rows=8192, width=8192, layers=4, dtype="bfloat16"),
    }.items():
        yield Case(f"compute: {name}", "compute", (COMPUTE,), (load,))
    for what in ("copy", "triad", "scale", "chain", "sum"):
        load = part("stream", 4, what=what, elements=2**26, sets=3)
        yield Case(f"memory: {what}", "memory_bandwidth", (MEMORY,), (load,))
    for name, load in {
        "decode, 1 row": part("dense", rows=1, width=8192, layers=16, dtype="bfloat16"),
        "softmax": part("rows", what="softmax", height=8192, width=8192, sets=3),
        "layer norm": part("rows", what="layer_norm", height=8192, width=8192, sets=3),
        "embedding gather": part("gather", 2, table_rows=2**21, width=1024, picks=2**16, sets=4),
    }.items():
        yield Case(f"memory: {name}", "memory_bandwidth", (MEMORY,), (load,))
    yield Case(
        "communication: all-reduce, late peer", "communication", (COMMUNICATION,), (REDUCE, PRODUCT), (0.8, 0.2)
    )  # fmt: skip


def _capacities() -> Iterator[Case]:
    gains = part("batch", item_bytes=2**30)
    for name, fixed in {
        "launches": TINY,
        "weights": part("dense", rows=1, width=8192, layers=16, dtype="bfloat16"),
    }.items():
        parts = (gains, fixed)
        yield Case(
            f"capacity: {name}, near the limit", "capacity", (CAPACITY,), parts, batch=(2, 4, 8), room_ratio=1.04
        )
        yield Case(
            f"capacity: {name}, next to a failure", "capacity", (CAPACITY,), parts, batch=(2, 4, 8), next_fails=True
        )


def _mixtures() -> Iterator[Case]:
    kinds = {
        "input": (SLEEPING, INPUT),
        "compute": (PRODUCT, COMPUTE),
        "memory": (STREAM, MEMORY),
        "host": (TINY, HOST),
    }
    for larger, smaller in (
        ("input", "compute"), ("compute", "input"), ("memory", "compute"), ("compute", "memory"), ("host", "compute"),
        ("compute", "host"), ("memory", "host"), ("host", "memory"),
    ):  # fmt: skip
        (one, truth), (other, _) = kinds[larger], kinds[smaller]
        yield Case(f"70/30: {larger}, {smaller}", "mixture", (truth,), (one, other), (0.7, 0.3))


def _unknowns() -> Iterator[Case]:
    for what in ("sleep", "lock", "command"):
        yield Case(f"unknown: {what}", "unknown", (UNKNOWN,), (part("odd", 10, what=what),))
