"""How far back queries look, and which of them a canary is not judged by."""

from pathlib import Path

import pytest

from autotuner.daemon.promql import looks_back_s
from autotuner.daemon.spec import load_service
from autotuner.errors import UsageError

DOCS = Path(__file__).parents[2] / "docs" / "daemon.md"
DAEMON = """
service: chat
study: study.yaml
prometheus: http://127.0.0.1:1
signals:
  latency_p95_s: {query: 'histogram_quantile(0.95, rate(seconds_bucket{arm="{arm}"}[1m]))', age_query: 'up[1h]'}
  failed_ratio: {query: 'rate(failed{arm="{arm}"}[30s])'}
  requests_per_s: {query: 'sum(rate(asked_total[5m]))'}
watch: {traffic: {requests_per_s: 2}}
canary:
  minimize: latency_p95_s
  guards: {failed_ratio: 0.05}
  window: 30 s
  requests: 'increase(asked{arm="{arm}"}[30s])'
  failures: 'increase(failed{arm="{arm}"}[30s])'
hooks: {apply: [x], observe: [x]}
"""


@pytest.mark.parametrize(
    ("query", "back_s"),
    [
        ("up", 0),
        ("rate(asked[5m])", 300),
        ("rate(asked[500ms])", 0.5),
        ("rate(asked[1h30m])", 5400),
        ("rate(asked[ 90 ])", 90),
        ("increase(asked[1d]) + rate(asked[1w])", 7 * 86400),
        ("asked{path=\"[1h]\"} / asked{path='[2h]'} + asked{path=`[1d]`} # [1y]", 0),
        (r'rate(asked{path="\"[1h]"}[1m])', 60),
        ("max_over_time(depth[30m:1m])", 1800),
        ("max_over_time(rate(asked[5m])[30m:1m])", 2100),
        ("max_over_time(rate(asked[5m])[30m:])", 2100),
        ("quantile_over_time(0.9, sum by (le) (rate(asked[1m]))[10m:30s] offset 5m)", 960),
        ("rate(asked[1m]) / rate(asked[1m] offset 1h)", 3660),
        ("asked - asked OFFSET 1d", 86400),
        ("rate(asked[1m] offset -1h)", 60),
        ("rate(asked[1m]) + max_over_time(job:offset:rate5m[2m:10s])", 120),
        (") rate(asked[1m]", 60),
    ],
)
def test_how_far_a_query_looks_back(query, back_s):
    assert looks_back_s(query) == back_s


@pytest.mark.parametrize("query", ["rate(asked[$range])", "rate(asked[])", "rate(asked[5 minutes])"])
def test_what_nobody_can_tell_is_said(query):
    with pytest.raises(ValueError, match=r"nobody can tell how far \["):
        looks_back_s(query)


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "study.yaml").write_text("")

    def loaded(old="", new=""):
        assert old in DAEMON
        (tmp_path / "daemon.yaml").write_text(DAEMON.replace(old, new))
        return load_service(tmp_path / "daemon.yaml")

    return loaded


@pytest.mark.parametrize(
    ("old", "new"),
    [("", ""), ("[30s])'}", "[1m])'}"), ("  window: 30 s", "  window: 1 min\n  warm_up_windows: 0")],
)
def test_over_two_windows_at_most(spec, old, new):
    """What is only watched may look back as far as it likes, and so may the age of a number."""
    assert spec(old, new).canary.window in (30, 60)


SHARED = "or windows share their numbers; shorten its range, or say canary: {window: "


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "[1m]",
            "[5m]",
            "signals.latency_p95_s: its query looks back 300 s: at most twice canary.window, 60 s, "
            + SHARED
            + "150 s}",
        ),
        ("[30s])'}", "[61s])'}", "signals.failed_ratio: its query looks back 61 s: at most twice"),
        (
            '\'increase(asked{arm="{arm}"}[30s])',
            '\'increase(asked{arm="{arm}"}[2m])',
            "canary.requests: its query looks back 120 s: at most canary.window, 30 s",
        ),
        (
            '\'increase(failed{arm="{arm}"}[30s])',
            '\'increase(failed{arm="{arm}"}[1m])',
            "canary.failures: its query looks back 60 s: at most canary.window, 30 s, ",
        ),
        ("window: 30 s", "window: 20 s", "signals.latency_p95_s: its query looks back 60 s: at most twice"),
        ("[1m]", "[$range]", "signals.latency_p95_s: nobody can tell how far [$range] looks back: write a duration"),
        (
            "window: 30 s",
            "window: 30 s\n  warm_up_windows: 1",
            "canary.warm_up_windows: at least 2 are needed: signals.latency_p95_s looks back 60 s, over more than one",
        ),
    ],
)
def test_what_would_tell_of_other_windows_is_a_mistake(spec, old, new, words):
    with pytest.raises(UsageError) as raised:
        spec(old, new)
    assert words in raised.value.message
    assert "daemon.yaml:" in raised.value.message
    assert "\n" not in raised.value.message


def test_the_file_of_the_documentation(tmp_path):
    text = next(block for block in DOCS.read_text().split("```") if block.startswith("yaml\nservice:"))
    (tmp_path / "daemon.yaml").write_text(text.removeprefix("yaml\n"))
    (tmp_path / "search_spaces").mkdir()
    (tmp_path / "search_spaces" / "my_server.yaml").write_text("")
    assert load_service(tmp_path / "daemon.yaml").service == "chat"
