"""What a daemon's file may say of its signals, and how it is told what it may not; probes of this machine."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from autotuner.daemon.measuring import Measuring
from autotuner.daemon.sources import Reading
from autotuner.daemon.spec import load_service
from autotuner.errors import UsageError
from autotuner.testing.nvml_replay import compile_library

DAEMON = """
service: chat
study: study.yaml
prometheus: http://127.0.0.1:1
arms: {stable: 8001, candidate: 8002}
load: {url: "http://127.0.0.1:{arm}", traffic: {requests: 64, prompts: asked.jsonl}}
signals:
  latency_p95_s: {load: latency_p95_s}
  latency_mean_s: {metrics: "http://127.0.0.1:{arm}/metrics", name: latency_seconds, take: mean}
  requests_per_s: {query: 'sum(rate(asked_total[5m]))'}
  prompt_tokens: {query: 'prompt_tokens'}
  cpu_ratio: {probe: host, name: cpu_foreign_ratio}
  gpu_bytes: {probe: gpu, name: memory_used_bytes}
  tokens_saved_ratio: {query: 'saved{arm="{arm}"}', better: lower}
watch: {drift: [latency_p95_s], traffic: {requests_per_s: 1.5, prompt_tokens: 2}}
canary: {minimize: latency_p95_s, guards: {latency_mean_s: 0.05, tokens_saved_ratio: 0.1}}
hooks: {apply: [x], observe: [x]}
"""
LOAD = 'load: {url: "http://127.0.0.1:{arm}", traffic: {requests: 64, prompts: asked.jsonl}}'
METRICS = '{metrics: "http://127.0.0.1:{arm}/metrics", name: latency_seconds, take: mean}'


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "study.yaml").write_text("")
    (tmp_path / "asked.jsonl").write_text('"What is it?"\n')

    def loaded(old="", new=""):
        assert old in DAEMON
        (tmp_path / "daemon.yaml").write_text(DAEMON.replace(old, new) if old else DAEMON)
        return load_service(tmp_path / "daemon.yaml")

    return loaded


def test_signals_of_every_kind(spec, tmp_path):
    found = spec()
    assert found.load.traffic.prompts == tmp_path / "asked.jsonl"
    assert found.load.target(found.arms, "candidate").url == "http://127.0.0.1:8002"
    assert found.watching().traffic == {"requests_per_s": 1.5, "prompt_tokens": 2}
    guards = {guard.metric: guard.maximize for guard in found.terms().guards}
    assert guards == {"latency_mean_s": False, "tokens_saved_ratio": False}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "{load: latency_p95_s}",
            "{load: latency_p95_s, query: up}",
            "8: signals.latency_p95_s: both query: and load:",
        ),
        ("{query: 'prompt_tokens'}", "{take: rate}", "11: signals.prompt_tokens: nothing says where it is read"),
        ("take: mean", "take: median", "'p99', found 'median'"),
        (METRICS, METRICS.replace("name: latency_seconds, ", ""), "metrics: needs a name: of the number there"),
        (METRICS, METRICS.replace("take: mean", "url: http://x"), "url: has no meaning beside metrics:"),
        ("{probe: host, name: cpu_foreign_ratio}", "{probe: host, name: rss_bytes}", "no number of the whole machine"),
        ("probe: gpu", "probe: torch", "expected 'gpu' or 'host', found 'torch'"),
        ("{load: latency_p95_s}", "{load: latency}", "the client measures no 'latency'; it tells latency_mean_s, "),
        ("{load: latency_p95_s}", "{load: latency_p99_s}", "latency_p99_s needs 299 requests, and traffic has 64"),
        (LOAD, "", "signals.latency_p95_s: say what our client sends, and where: load:"),
        (LOAD, LOAD.replace("{arm}", "1"), "{arm} is in neither url nor model nor headers"),
        (LOAD, LOAD.replace("url", "api: json, url").replace(", prompts: asked.jsonl", ""), "api: json needs requests"),
        (LOAD, LOAD.replace("requests: 64", "requests: 64, arrivals: poisson"), "poisson arrivals need rate_per_s"),
        (LOAD, LOAD.replace("asked", "other"), "6: load.traffic.prompts: "),
        (LOAD, LOAD.replace("http:", "ftp:"), "'ftp://127.0.0.1:8001' is no URL of a server (arms: "),
        (
            "arms: {stable: 8001, candidate: 8002}",
            "",
            "'http://127.0.0.1:stable/metrics' is no URL of a server (arms: ",
        ),
        ("candidate: 8002", "candidate: 8001", "5: arms: stable and candidate are the same"),
        ("prompt_tokens: 2}", "prompt_tokens: 1}", "watch.traffic.prompt_tokens: "),
        ("prompt_tokens: 2}", "prompts: 2}", "signals: nothing tells prompts"),
        (", prompt_tokens: 2", "", "signals.prompt_tokens: unknown metric 'prompt_tokens'"),
        ('saved{arm="{arm}"}', "saved", "canary: tokens_saved_ratio is read at one place for both arms"),
        ("{load: latency_p95_s}", "{probe: gpu, name: power_w}", "canary: latency_p95_s is read at one place"),
        ("canary: {", "canary: {requests: up, ", "canary: under a load: the client itself counts"),
        ("watch: {", "watch: {slo: [nonsense], ", "'nonsense' is no limit"),
        (
            "watch: {",
            "watch: {slo: [latency_p95_s <= 120 % of baseline], ",
            "watch.slo: latency_p95_s <= 120 % of baseline: nothing serves as baseline while watching",
        ),
    ],
)
def test_a_mistake_is_one_line(spec, old, new, words):
    with pytest.raises(UsageError) as raised:
        spec(old, new)
    assert words in raised.value.message
    assert "daemon.yaml:" in raised.value.message
    assert "\n" not in raised.value.message


def test_a_page_needs_an_extra(spec, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"metrics: needs prometheus_client: pip install 'autotune-loop\[prometheus\]'"
    ):
        spec()


def test_a_probe_of_this_machine(spec):
    found = spec()
    with Measuring(found) as measuring:
        source = measuring._source(found.signals["cpu_ratio"], "stable")
        source.read(time.time())
        time.sleep(0.1)
        now_s = time.time()
        seen = source.read(now_s)
        assert isinstance(seen, Reading)
        assert 0 <= seen.value <= 1.1
        assert source.read(now_s) == seen, "signals of one look share what was seen"


GPU = """
import time
from contextlib import ExitStack
from autotuner.daemon.probing import Probed, Probes
with ExitStack() as stack:
    source = Probed(Probes(stack), "gpu", "memory_used_bytes")
    print(source.read(0.0).reason)
    time.sleep(0.5)
    seen = source.read(1.0)
    print(getattr(seen, "reason", "") or seen.value > 0)
"""


@pytest.mark.parametrize("there", [False, True])
def test_a_probe_of_a_gpu(there, tmp_path):
    """The real binding, over a library that plays a GPU back; and where there is none at all."""
    if there and shutil.which("gcc") is None:
        pytest.skip("no gcc")
    folder = compile_library(tmp_path).parent if there else tmp_path
    if not there:
        (tmp_path / "libnvidia-ml.so.1").write_text("")  # of a machine that has one, it is none
    env = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    env["LD_LIBRARY_PATH"] = str(folder)
    done = subprocess.run([sys.executable, "-c", GPU], env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    if there:
        assert (first, second) == ("the probe gpu tells no memory_used_bytes, or only at the second look", "True")
    else:
        assert first == second == "the probe gpu sees nothing here: is there a GPU? see autotune doctor"
