"""The recommendation as environment variables: a file for everybody, a script for `sh`, a drop-in for systemd."""

import shlex
from collections.abc import Iterator
from typing import ClassVar, Literal

from autotuner.exporters.settings import mention
from autotuner.exporters.variables import all_variables, parse, quote, variable
from autotuner.plugins import Exporter
from autotuner.types import Config, Draft, Recommendation


class EnvExporter(Exporter):
    """Environment variables, AUTOTUNE_PARAMETER=value: for sh, systemd, docker and podman."""

    kind: Literal["env"] = "env"
    target_version: ClassVar[str] = "POSIX sh; systemd; docker --env-file for unquoted values"

    def draft(self, config: Config, recommendation: Recommendation) -> Draft:
        """`STUDY.env`, `STUDY.sh` and `STUDY.conf`."""
        variables = all_variables(config, recommendation)
        head = [f"# {mention(recommendation)}", *_absent(config)]
        env = [*head, *(f"{name}={quote(value)}" for name, value in variables.items())]
        script = [*head, *(f"export {name}={shlex.quote(value)}" for name, value in variables.items())]
        unit = [*head, "[Service]", *(f"Environment={_for_systemd(name, value)}" for name, value in variables.items())]
        files = {
            f"{recommendation.study}.{ending}": ("\n".join(lines) + "\n").encode()
            for ending, lines in (("env", env), ("sh", script), ("conf", unit))
        }
        assert parse(files[f"{recommendation.study}.env"].decode()) == variables
        name = recommendation.study
        use = (
            f"`. {{bundle}}/{name}.sh`; or `EnvironmentFile={{bundle}}/{name}.env`; or "
            f"`cp {{bundle}}/{name}.conf /etc/systemd/system/YOUR.service.d/`; or `docker run --env-file "
            f"{{bundle}}/{name}.env`"
        )
        return Draft(files, use)


def _for_systemd(name: str, value: str) -> str:
    r"""An assignment of `Environment=`: quoted, with its percent signs and backslashes doubled.

    >>> _for_systemd("A", '5% "x"')
    '"A=5%% \\"x\\""'
    """
    return '"' + f"{name}={value}".replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def _absent(config: Config) -> Iterator[str]:
    return (f"# {variable(name)} is not set: its value is null" for name, value in config.items() if value is None)
