"""For KServe: a merge patch of an InferenceService, whose model container gets command, arguments and environment.

KServe replaces the command of the runtime's container by the model's, and puts the model's arguments behind the
runtime's own.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field

from autotuner.exporters.command_line import command_line
from autotuner.exporters.containers import dns_name, environment, only_a_variable, started_with
from autotuner.exporters.documents import as_yaml
from autotuner.exporters.settings import mention
from autotuner.exporters.variables import all_variables
from autotuner.plugins import Exporter
from autotuner.types import Config, Draft, Recommendation


class KserveExporter(Exporter):
    """A merge patch of a KServe InferenceService: the model's command, arguments and environment."""

    kind: Literal["kserve"] = "kserve"
    service: str = Field(
        "",
        pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$",
        description="Of the InferenceService; the study's name when left out.",
    )
    port: int = Field(
        8080, ge=1, le=65535, description="Where the server listens; KServe looks there unless told else."
    )
    target_version: ClassVar[str] = "KServe 0.21 (serving.kserve.io/v1beta1)"
    needs: ClassVar[str] = "any study; --set service=NAME"

    def draft(self, config: Config, recommendation: Recommendation) -> Draft:
        """`inferenceservice-patch.yaml`."""
        name = self.service or dns_name(recommendation.study)
        variables, line = all_variables(config, recommendation), command_line(recommendation, config)
        model: dict[str, Any] = {"env": environment(variables)}
        use = (
            f"`kubectl patch inferenceservice {name} --type merge --patch-file "
            "{bundle}/inferenceservice-patch.yaml`; it replaces the lists of spec.predictor.model that it has, "
            "so add to them what they hold besides."
        )
        left_out: dict[str, str] = {}
        if line is not None:
            model |= started_with(line, self.port)
            left_out = only_a_variable(line, config, words=True)
            use += " KServe puts the runtime's own args before these: use a runtime that has none."
        patch = as_yaml({"spec": {"predictor": {"model": model}}}, comments=[mention(recommendation)])
        return Draft({"inferenceservice-patch.yaml": patch}, use, left_out, line.withheld if line else {})
