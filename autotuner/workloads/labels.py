"""What a server must still answer: fixed prompts, and a labelled set."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from autotuner.errors import UsageError


class Quality(BaseModel):
    """What a server is asked besides load, to see whether it still answers as the baseline does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: int = Field(8, ge=0, description="Fixed prompts whose likeliest tokens are compared; 0 for none.")
    tokens: int = Field(16, ge=1, description="Of each answer.")
    labels: Path | None = Field(
        None, description='JSON lines {"prompt": …, "label": …} for top1_accuracy_ratio and top5_accuracy_ratio.'
    )
    answer: str = Field("", description="Of json endpoints: where the labels stand in an answer, as in result.labels.")


def read_labels(path: Path) -> list[Mapping[str, Any]]:
    """JSON lines with `label`, and `prompt` or `body`.

    Raises:
        UsageError: The file is none of these.
    """
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        if not rows or not all("label" in row and ("prompt" in row or "body" in row) for row in rows):
            raise ValueError
    except (OSError, ValueError, TypeError):
        raise UsageError(f"quality.labels: {path} is no JSON lines with prompt, or body, and label") from None
    return rows


def labels_at(data: Any, place: str) -> list[str]:
    """Labels in an answer: a text, a list of texts, or of objects with a `label`; in the order of the answer."""
    for key in filter(None, place.split(".")):
        data = data.get(key, []) if isinstance(data, Mapping) else []
    rows = data if isinstance(data, list) else [data]
    return [str(row.get("label", "") if isinstance(row, Mapping) else row) for row in rows]
