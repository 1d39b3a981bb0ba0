"""The number format that a training computes in, under the names that people give it."""

from typing import Literal

from autotuner.exporters.settings import Settings

Precision = Literal["no", "bf16", "fp16", "fp8"]

_SPELLINGS: dict[str, Precision] = {
    "no": "no", "none": "no", "false": "no", "fp32": "no", "float32": "no", "torch.float32": "no",
    "bf16": "bf16", "bfloat16": "bf16", "torch.bfloat16": "bf16",
    "fp16": "fp16", "float16": "fp16", "half": "fp16", "torch.float16": "fp16",
    "fp8": "fp8",
}  # fmt: skip


def precision(settings: Settings, *, fp8: bool = False) -> Precision | None:
    """Take the format of autocast; None where the study says none, or one that is unknown, which is left out.

    Args:
        settings: The configuration.
        fp8: Whether the target knows it.

    >>> precision(Settings({"precision": "BFloat16"})), precision(Settings({"autocast": False}))
    ('bf16', 'no')
    """
    known = {spelling: format_ for spelling, format_ in _SPELLINGS.items() if fp8 or format_ != "fp8"}
    return settings.take_as(known, "autocast", "precision", "mixed_precision")
