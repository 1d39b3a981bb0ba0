"""For Kubernetes: a Kustomize component, and values for a Helm chart.

The variables go into a generated ConfigMap, whose name carries a hash of its content: a new configuration rolls the
pods, and the old map is still there to go back to.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from autotuner.exporters.command_line import command_line
from autotuner.exporters.containers import dns_name, environment, only_a_variable, started_with
from autotuner.exporters.documents import as_yaml
from autotuner.exporters.settings import mention
from autotuner.exporters.variables import all_variables, as_plain_file
from autotuner.plugins import Exporter
from autotuner.types import Check, Config, Draft, Recommendation

_GO_BACK = "`components: [{bundle}/rollback]` in its place goes back."
_PORT = "; a container's arguments are replaced whole: say on which port it listens, --set port=8000"


class KubernetesExporter(Exporter):
    """A Kustomize component that patches a Deployment, and values for a Helm chart."""

    kind: Literal["kubernetes"] = "kubernetes"
    deployment: str = Field("", description="Of the Deployment; the study's name when left out.")
    container: str = Field("", description="In its pods; the Deployment's name when left out.")
    port: int | None = Field(None, ge=1, le=65535, description="Then command and arguments are replaced as well.")
    target_version: ClassVar[str] = "Kubernetes 1.37, Kustomize 5.8, Helm 3"
    needs: ClassVar[str] = "any study; --set deployment=NAME, and --set port=8000 for a server's command line"

    def draft(self, config: Config, recommendation: Recommendation) -> Draft:
        """`kustomization.yaml`, `deployment-patch.yaml`, `autotune.env` and `values.yaml`."""
        name = self.deployment or dns_name(recommendation.study)
        container, variables = self.container or name, all_variables(config, recommendation)
        line = command_line(recommendation, config)
        started = started_with(line, self.port) if line and self.port else {}
        comment = [mention(recommendation)]
        reference = [{"configMapRef": {"name": f"{name}-autotune"}}]
        pod: dict[str, Any] = {"containers": [{"name": container, **started, "envFrom": reference}]}
        patch = {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {"template": {"spec": pod}},
        }  # fmt: skip
        component = {
            "apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component",
            "configMapGenerator": [{"name": f"{name}-autotune", "envs": ["autotune.env"]}],
            "patches": [{"path": "deployment-patch.yaml", "target": {"kind": "Deployment", "name": name}}],
        }  # fmt: skip
        values = {"env": environment(variables), **started}
        files = {
            "kustomization.yaml": as_yaml(component, comments=comment),
            "deployment-patch.yaml": as_yaml(patch, comments=comment),
            "autotune.env": as_plain_file(variables),
            "values.yaml": as_yaml(values, comments=comment),
        }
        use = f"`components: [{{bundle}}]` in the kustomization.yaml of {name}; "
        use += "or `helm upgrade … -f {bundle}/values.yaml`."
        if line is None:
            return Draft(files, f"{use} {_GO_BACK}")
        left_out = only_a_variable(line, config, words=self.port is not None, hint="" if self.port else _PORT)
        return Draft(files, f"{use} {_GO_BACK}", left_out, line.withheld if self.port else line.unset)

    def checks(self) -> Sequence[Check]:
        """Kustomize itself, on the component alone."""
        return (Check("kubectl kustomize", "kubectl", ("kubectl", "kustomize", "{bundle}")),)
