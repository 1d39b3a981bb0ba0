"""The recommendation as environment variables: a file for `sh` and systemd, one for docker, a script, a drop-in."""

import shlex
from collections.abc import Iterator
from typing import ClassVar, Literal

from autotuner.exporters.command_line import command_line
from autotuner.exporters.settings import mention
from autotuner.exporters.variables import all_variables, as_env_file, as_plain_file, parse, variable
from autotuner.plugins import Exporter
from autotuner.types import Config, Draft, Recommendation


class EnvExporter(Exporter):
    """Environment variables, AUTOTUNE_PARAMETER=value: for sh, systemd, docker and podman."""

    kind: Literal["env"] = "env"
    target_version: ClassVar[str] = "POSIX sh; systemd; docker and podman run --env-file"

    def draft(self, config: Config, recommendation: Recommendation) -> Draft:
        """`STUDY.env`, `STUDY.docker.env`, `STUDY.sh` and `STUDY.conf`."""
        variables, name = all_variables(config, recommendation), recommendation.study
        head = "".join(f"# {line}\n" for line in (mention(recommendation), *_absent(config)))
        script = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in variables.items())
        unit = "".join(f"Environment={_for_systemd(key, value)}\n" for key, value in variables.items())
        files = {
            f"{name}.env": head.encode() + as_env_file(variables),
            f"{name}.docker.env": head.encode() + as_plain_file(variables),
            f"{name}.sh": (head + script).encode(),
            f"{name}.conf": (head + "[Service]\n" + unit).encode(),
        }
        assert parse(files[f"{name}.env"].decode()) == variables
        use = (
            f"`. {{bundle}}/{name}.sh`; or `EnvironmentFile={{bundle}}/{name}.env`; or "
            f"`cp {{bundle}}/{name}.conf /etc/systemd/system/YOUR.service.d/`; or `docker run --env-file "
            f"{{bundle}}/{name}.docker.env`, as docker takes quotes for a part of the value"
        )
        line = command_line(recommendation, config)
        return Draft(files, use, withheld=line.unset if line else {})


def _for_systemd(name: str, value: str) -> str:
    r"""An assignment of `Environment=`: quoted, with its percent signs and backslashes doubled.

    >>> _for_systemd("A", '5% "x"')
    '"A=5%% \\"x\\""'
    """
    return '"' + f"{name}={value}".replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def _absent(config: Config) -> Iterator[str]:
    return (f"{variable(name)} is not set: its value is null" for name, value in config.items() if value is None)
