"""Configurations, and what is measured of them: the plainest values."""

import json
from collections.abc import Mapping
from typing import TypeAlias

Value: TypeAlias = bool | int | float | str | None
Config: TypeAlias = Mapping[str, Value]
Metrics: TypeAlias = Mapping[str, float]


def config_key(config: Config) -> str:
    """The identity of a configuration: equal for equal values, whatever the order of the parameters.

    >>> config_key({"b": 1, "a": True})
    '{"a":true,"b":1}'
    """
    return json.dumps(dict(config), sort_keys=True, separators=(",", ":"))
