"""For KServe: a merge patch of an InferenceService, whose model container gets arguments and environment."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from autotuner.exporters.command_line import command_line, is_flag
from autotuner.exporters.documents import as_yaml
from autotuner.exporters.settings import mention
from autotuner.exporters.variables import all_variables
from autotuner.plugins import Exporter
from autotuner.types import Config, Draft, Recommendation


class KserveExporter(Exporter):
    """A merge patch of a KServe InferenceService: the model's arguments and environment."""

    kind: Literal["kserve"] = "kserve"
    service: str = Field("", description="Of the InferenceService; the study's name when left out.")
    target_version: ClassVar[str] = "KServe 0.21 (serving.kserve.io/v1beta1)"
    needs: ClassVar[str] = "any study; --set service=NAME"

    def draft(self, config: Config, recommendation: Recommendation) -> Draft:
        """`inferenceservice-patch.yaml`."""
        name = self.service or "".join(c if c.isalnum() else "-" for c in recommendation.study.lower()).strip("-")
        variables, line = all_variables(config, recommendation), command_line(recommendation, config)
        model: dict[str, Any] = {"env": [{"name": key, "value": value} for key, value in variables.items()]}
        if line is not None:
            first = next((place for place, word in enumerate(line.words) if place and is_flag(word)), len(line.words))
            model["args"] = [*line.words[first:]]
        patch = {"spec": {"predictor": {"model": model}}}
        text = as_yaml(patch, comments=[mention(recommendation)])
        use = (
            f"`kubectl patch inferenceservice {name} --type merge --patch-file "
            "{bundle}/inferenceservice-patch.yaml`; "
            "it replaces the lists args and env of spec.predictor.model, so add to them what they hold besides."
        )
        return Draft({"inferenceservice-patch.yaml": text}, use)
