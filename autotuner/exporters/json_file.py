"""The recommendation with its proof, as JSON for programs."""

import dataclasses
import json
import math
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal

from autotuner.exporters.common import FileExporter, is_forced
from autotuner.types import Recommendation


class JsonExporter(FileExporter):
    """Writes `STUDY.json`: configuration, evidence, environment. The same recommendation gives the same bytes."""

    kind: Literal["json"] = "json"
    target_version: ClassVar[str] = "autotune/1"

    def export(self, recommendation: Recommendation, directory: Path) -> Path:
        """Write the file; see `Exporter.export`."""
        self.admit(recommendation)
        document = as_document(recommendation)
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        assert json.loads(text) == document
        return self.write(directory / f"{recommendation.study}.json", text)


def as_document(recommendation: Recommendation) -> dict[str, Any]:
    """The recommendation in plain JSON values; what is not finite is null.

    `gain_ratio` is in the direction of improvement, 1.25 is a quarter better; all quantities are in SI base units.
    """
    proof = recommendation.verification
    equivalence = proof.equivalence
    document = {
        "format": JsonExporter.target_version,
        "code_version": version("autotune-loop"),
        "study": recommendation.study,
        "forced": is_forced(recommendation),
        "config": dict(recommendation.config),
        "baseline": dict(recommendation.baseline),
        "decision": proof.decision.value,
        "reason": proof.reason,
        "metric": proof.metric,
        "gain_ratio": proof.gain_ratio,
        "gain_interval": list(proof.gain_interval),
        "pairs": len(proof.pairs),
        "noise_floor_ratio": proof.noise_floor_ratio,
        "equivalence": None if equivalence is None else dataclasses.asdict(equivalence),
        "metrics": dict(proof.metrics),
        "baseline_metrics": dict(proof.baseline_metrics),
        "violations": dict(proof.violations),
        "contributions": [dataclasses.asdict(contribution) for contribution in proof.contributions],
        "environment": dict(recommendation.environment),
    }
    plain = _plain(document)
    assert isinstance(plain, dict)
    return plain


def _plain(value: Any) -> Any:
    """`value` as JSON gives it back: no tuples, no NaN or infinity, which JSON does not know."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
