"""What the checks hold the parts against: operations that do nothing but arithmetic, or nothing but move data."""

from labelled.cases import part
from labelled.part import PartSpec


def product(dtype: str, device: str) -> PartSpec:
    """A matrix product that does nothing but arithmetic."""
    if device == "cpu":
        return part("matmul", n={"float32": 1024, "float64": 512}.get(dtype, 256), sets=1, dtype=dtype)
    return part("matmul", n=4096 if dtype == "float64" else 8192, sets=1, dtype=dtype)


def stream(what: str, device: str) -> PartSpec:
    """A stream that does nothing but move data."""
    return part("stream", what=what, elements=2**19 if device == "cpu" else 2**26)
