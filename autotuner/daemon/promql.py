"""How far back a PromQL query looks: a number over a long time is not one of a short window.

Only brackets, offsets and parentheses are read; whatever else the query says, its server understands or refuses. See
https://prometheus.io/docs/prometheus/latest/querying/basics/.
"""

import re

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0, "y": 365 * 86400.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhdwy])")
_DURATION = re.compile(rf"(?:{_PART.pattern})+|[0-9]+(?:\.[0-9]+)?")
_TOKEN = re.compile(
    r"""(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`|\#[^\n]*|\{|\}|\s)
    |\[(?P<range>[^\]:]*)(?P<subquery>:[^\]]*)?\]
    |(?i:offset)\s+(?P<offset>-?\s*[0-9][0-9.a-z]*)
    |(?P<bracket>[()])
    |(?P<other>[\w:.]+|.)""",
    re.VERBOSE,
)


def looks_back_s(query: str) -> float:
    """Seconds before the time of the question from which the oldest number comes; 0 where only the present is asked.

    Args:
        query: With {arm} filled in.

    Raises:
        ValueError: A range is not given as a duration, such as [1m30s].

    >>> looks_back_s('sum(rate(asked_total{path="[1h]"}[1m30s])) + max_over_time(depth[2m:10s])')
    120.0
    """
    reach_s, last_s = [0.0], 0.0  # of each pair of parentheses that is open; of what was read last
    for token in _TOKEN.finditer(query):
        if token["range"] is not None:  # a subquery asks what is beside it at each of its steps
            last_s = _seconds(token["range"]) + (reach_s[-1] if token["subquery"] else 0.0)
        elif token["offset"]:
            last_s += 0.0 if token["offset"].startswith("-") else _seconds(token["offset"])
        elif token["bracket"] == "(":
            reach_s.append(0.0)
        elif token["bracket"] == ")" and len(reach_s) > 1:
            last_s = reach_s.pop()
        elif token["other"]:
            last_s = 0.0
        reach_s[-1] = max(reach_s[-1], last_s)
    return max(reach_s)


def _seconds(text: str) -> float:
    """Of a duration: 1h30m, 500ms; a plain number is one of seconds."""
    text = text.strip()
    if not _DURATION.fullmatch(text):
        raise ValueError(f"nobody can tell how far [{text}] looks back: write a duration, such as [1m]")
    parts = _PART.findall(text)
    return sum(float(count) * _UNITS_S[unit] for count, unit in parts) if parts else float(text)
