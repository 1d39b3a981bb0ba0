"""The configuration as JSON for programs; the proof lies beside it."""

from typing import ClassVar, Literal

from autotuner.exporters.documents import as_json
from autotuner.plugins import Exporter
from autotuner.types import Config, Draft, Recommendation


class JsonExporter(Exporter):
    """The configuration as one JSON object, for programs."""

    kind: Literal["json"] = "json"
    target_version: ClassVar[str] = "JSON"

    def draft(self, config: Config, recommendation: Recommendation) -> Draft:
        """`STUDY.json`: `{parameter: value}`."""
        name = f"{recommendation.study}.json"
        return Draft({name: as_json(dict(config))}, f"`json.load(open('{{bundle}}/{name}'))`")
