"""Servers that behave, and servers that do not: each in a real process, each fault a failure of its trial only."""

import itertools
import json
import math
import re
import socket
import sys
from pathlib import Path

import psutil
import pytest

from autotuner.errors import AutotuneError, UsageError
from autotuner.executors.process import ProcessExecutor
from autotuner.load.process import LoadClient
from autotuner.monitor import answers
from autotuner.monitor.reference import compare
from autotuner.plugins import Job
from autotuner.spec import Machine, load
from autotuner.types import Failure, FailureKind, Measurement, MeasurementProtocol
from autotuner.workloads.server import Server

pytestmark = pytest.mark.alone
FAULTY = str(Path(__file__).parent.parent / "servers" / "faulty.py")
NUMBERS = itertools.count()
QUICK = MeasurementProtocol(block_s=0.001, min_blocks=1, min_measure_s=0, max_measure_s=0.1, contended_retries=0)
LOAD = {"requests": 12, "concurrency": 4, "prompt_words": 4, "output_tokens": 5}


def server(behaviour="good", *arguments, **options):
    argv = ["{python}", FAULTY, "{port}", behaviour, *arguments]
    known = {"api": "completions", "argv": argv, "load": LOAD, "timeout_s": 5, "ready_s": 20, "stop_s": 0.5}
    return Server(**{**known, **options})


@pytest.fixture(scope="module")
def pool():
    with ProcessExecutor().open() as opened:
        yield opened


@pytest.fixture
def measure(pool):
    """In a process of its own."""

    def measured(workload, config=None):
        launch = f"launch{next(NUMBERS)}"
        found = pool.submit(Job(workload, config or {}, QUICK, launch=launch, log_path=Path("t.log"))).result(60)
        pool.close(launch)
        return found

    return measured


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_good_server_is_measured(measure):
    found = measure(server(slo={"latency_s": "2 s"}, price_per_hour=3.6))
    assert isinstance(found, Measurement), found
    samples = found.samples
    assert len(samples["latency_s"]) == len(samples["ttft_s"]) >= 12
    tokens_per_s, requests_per_s = (samples[f"throughput_{name}_per_s"][0] for name in ("tokens", "requests"))
    assert tokens_per_s == pytest.approx(5 * requests_per_s, rel=0.01)
    assert samples["cost_per_million_tokens"][0] == pytest.approx(1e6 * 1e-3 / tokens_per_s, rel=0.1)
    assert set(samples["error_ratio"]) == {0.0}
    assert set(samples["slo_attainment_ratio"]) == {1.0}
    assert samples["goodput_requests_per_s"][0] == pytest.approx(requests_per_s, rel=0.1)
    assert samples["peak_memory_bytes"][0] > 10e6  # of the server, which is Python


def test_nothing_is_left_of_it():
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    workload = server("ignores-sigterm")
    with workload.open({}, "cpu") as opened:
        opened.step({})
        pids = [*opened.processes(), *(one.pid for one in psutil.Process().children(recursive=True))]
    assert not [pid for pid in pids if pid not in before and psutil.pid_exists(pid)]


@pytest.mark.parametrize(
    ("behaviour", "arguments", "says"),
    [
        ("never-ready", (), "gave no answer within 1 s: the connection failed"),
        ("refuses", (), "gave no answer within 1 s: HTTP 404: "),
        ("dies", ("--dies-after", "6"), "left with exit code 3"),
        ("dies", ("--dies-after", "0"), "left with exit code 3"),
        ("error-body", (), "the answer is an error: the engine is dead"),
        ("error-event", (), "out of blocks"),
        ("empty", (), "the answer is empty"),
        ("wrong-type", (), "text/html, not JSON or an event stream"),
        ("half-closed", (), "requests failed, "),
    ],
)
def test_a_bad_server_fails_its_trial_only(behaviour, arguments, says, measure):
    ready_s = 1 if behaviour in ("never-ready", "refuses", "empty") else 20
    found = measure(server(behaviour, *arguments, ready_s=ready_s))
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.CRASHED
    assert says in found.message


def test_a_server_that_takes_too_much_memory():
    workload = server("leaks")
    with ProcessExecutor(memory_limit_bytes=600 * 2**20).open() as pool:
        found = pool.submit(Job(workload, {}, QUICK, log_path=Path("t.log"))).result(60)
        after = pool.submit(Job(server(), {}, QUICK, launch="next", log_path=Path("t.log"))).result(60)
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.OUT_OF_MEMORY
    assert isinstance(after, Measurement)


def test_a_port_that_is_taken(measure):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        found = measure(server(port=port))
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.UNSUPPORTED
    assert f"port {port} is taken" in found.message


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with server().open({}, "cpu") as opened:
        assert opened.step({}).work["requests"] == 12


def test_a_program_that_is_not_there(measure):
    found = measure(server(argv=["no-such-server", "{port}"]))
    assert isinstance(found, Failure)
    assert "there is no no-such-server" in found.message


def test_a_strict_server_is_asked_for_what_it_knows():
    with server("strict").open({}, "cpu") as opened:
        assert opened.dialect.wishes == {"temperature": 0.0}
        assert opened.step({}).work["tokens"] == 60


def test_more_than_it_serves_is_no_measurement(measure):
    """One place of 50 ms serves 20 requests/s."""
    slow = {"arrivals": "poisson", "rate_per_s": 60, "requests": 60, "output_tokens": 2}
    found = measure(server("good", "--service-s", "0.05", "--places", "1", load=slow, slo={"latency_s": "100 ms"}))
    assert isinstance(found, Measurement), found
    assert set(found.samples["latency_s"]) == {math.inf}, "latencies would only say how long one looked"
    assert found.samples["slo_attainment_ratio"][0] < 0.3
    assert found.samples["throughput_requests_per_s"][0] < 25


def test_the_highest_rate_that_keeps_the_level():
    load = {"arrivals": "poisson", "rate_per_s": 1, "requests": 40, "concurrency": 2, "output_tokens": 2}
    workload = server(
        "good", "--service-s", "0.02", "--places", "1", load=load, slo={"latency_s": "100 ms"}, find_rate=True
    )
    with workload.open({}, "cpu") as opened:
        step = opened.step({})
    assert 10 < step.metrics["slo_rate_per_s"] < 50  # of 50 that it serves at all
    assert step.metrics["slo_attainment_ratio"] >= 0.95


def test_probes_beyond_what_it_serves_may_fail():
    load = {"arrivals": "poisson", "rate_per_s": 1, "requests": 40, "concurrency": 8, "output_tokens": 2}
    workload = server(
        "sheds", "--service-s", "0.02", "--places", "1", load=load, slo={"latency_s": "200 ms"}, find_rate=True
    )
    with workload.open({}, "cpu") as opened:
        step = opened.step({})
    assert 5 < step.metrics["slo_rate_per_s"] < 100, "40 requests say little, and it serves 50"
    assert step.metrics["error_ratio"] <= 0.01


def test_steps_of_every_configuration_have_the_same_arrivals_and_other_prompts(monkeypatch):
    plans = []
    run = LoadClient.run
    monkeypatch.setattr(LoadClient, "run", lambda client, plan: plans.append(plan) or run(client, plan))
    load = {"arrivals": "poisson", "rate_per_s": 200, "requests": 10, "output_tokens": 2}
    with server(load=load, request={"n": "{n}"}).open({"n": 1}, "cpu") as opened:
        for n in (1, 2):
            plans.clear()
            opened.step({"n": n})
            opened.step({"n": n})
            paced = [plan for plan in plans if plan.paced and len(plan.calls) == 10]
            due = [tuple(call.due_s for call in plan.calls) for plan in paced]
            prompts = {call.body["messages"][0]["content"] if "messages" in call.body else call.body["prompt"]
                       for plan in paced for call in plan.calls}  # fmt: skip
            if n == 1:
                first_due, first_prompts = list(dict.fromkeys(due)), prompts
    assert list(dict.fromkeys(due)) == first_due
    assert len(first_due) == 2
    assert not prompts & first_prompts


def test_an_answer_of_an_unknown_form_fails_alone(measure):
    found = measure(server("odd"))
    assert isinstance(found, Failure)
    assert "requests failed" in found.message or "gave no answer" in found.message


def test_a_candidate_without_answers_is_not_the_same():
    with server("good").open({}, "cpu") as opened:
        known = opened.outputs({}, None)
    assert compare(known, {}, "float32")["top5_agreement_ratio"] == 0
    with server("mute").open({}, "cpu") as opened, pytest.raises(AutotuneError, match="no answer to prompt 0"):
        opened.outputs({}, None)


def test_parameters_that_it_takes_while_it_runs():
    workload = server(reload={"path": "/tune", "json": {"service_s": "{service_s}"}})
    assert workload.trait("service_s").live
    with workload.open({"service_s": 0.01}, "cpu") as opened:
        fast, slow = (min(opened.step({"service_s": s}).samples["latency_s"]) for s in (0.01, 0.06))
    assert slow >= 0.06 > fast


def test_a_parameter_of_requests_is_live_and_one_of_the_start_is_not():
    workload = server("good", "--service-s", "{service_s}", request={"max_tokens": "{length}"})
    assert workload.trait("length").live
    assert not workload.trait("service_s").live
    assert workload.fixed({"service_s": 0, "length": 3}) == {"service_s"}
    with workload.open({"service_s": 0.01, "length": 3}, "cpu") as opened:
        assert opened.step({"service_s": 0.01, "length": 7}).work["tokens"] == 84


@pytest.mark.parametrize(
    ("config", "says"),
    [({}, "{threads} is no parameter"), ({"threads": 1, "batch": 2}, "batch is used nowhere: write {batch} into argv")],
)
def test_texts_and_parameters_that_do_not_fit(config, says):
    assert says in server("good", "{threads}").refuses(config)


def test_an_endpoint_of_ones_own(folder, measure):
    (folder / "bodies.jsonl").write_text('{"body": {"x": 1}}\n{"body": {"x": 2}}\n')
    rows = [
        {"body": {"x": n}, "label": label} for n, label in ((0, "class0"), (1, "class1"), (2, "class9"), (3, "cat"))
    ]
    (folder / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    workload = server(
        api="json", path="/predict", load={**LOAD, "prompts": folder / "bodies.jsonl"},
        quality={"labels": folder / "labels.jsonl", "answer": "labels"},
    )  # fmt: skip
    workload.check()
    found = measure(workload)
    assert isinstance(found, Measurement), found
    assert set(found.samples["top1_accuracy_ratio"]) == {0.5}
    assert set(found.samples["top5_accuracy_ratio"]) == {0.75}
    assert "ttft_s" not in found.samples


def test_answers_are_compared_as_far_as_both_went_the_same_way():
    outputs = {}
    for behaviour in ("good", "unsure"):
        with server(behaviour).open({}, "cpu") as opened:
            outputs[behaviour] = opened.outputs({}, None)
    same = answers.compare(outputs["good"], outputs["good"])
    assert same == {"output_identical": 1.0, "top1_agreement_ratio": 1.0, "top5_agreement_ratio": 1.0}
    other = answers.compare(outputs["good"], outputs["unsure"])
    assert other["top1_agreement_ratio"] == 0.0  # it was sure, and the other chose otherwise
    assert other["top5_agreement_ratio"] == 1.0  # but each had the other's choice among its likeliest
    assert answers.compare(outputs["unsure"], outputs["good"])["top1_agreement_ratio"] == 1.0  # a near-tie counts not


def test_a_secret_of_the_environment_is_not_handed_on(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("VLLM_API_KEY", "s3cret")
    code = (
        "import os; e = os.environ; "
        "print(e.get('AWS_SECRET_ACCESS_KEY') or e.get('VLLM_API_KEY'), e['OMP_NUM_THREADS'], e['X'])"
    )
    workload = server(argv=[sys.executable, "-c", code + "; raise SystemExit(9)"], env={"X": "{n}", "PORT": "{port}"})
    with pytest.raises((AutotuneError, OSError), match="None 3 4"), workload.open({"n": 4}, "cpu"):
        pass


FILE = """\
workload:
  kind: server
  argv: [./serve, --port, "{port}", --cache, "{cache}"]
  api: json
  load: {arrivals: closed}
parameters:
  cache: {int: [0, 3], default: 0}
objectives:
  - maximize: throughput_requests_per_s
"""


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["nosuch-server", "{port}"], "workload.argv: there is no program nosuch-server"),
        (["./nosuch", "{port}"], "workload.argv: there is no program ./nosuch"),
        (["{python}", "nosuch.py", "{port}"], "workload.argv: there is no file nosuch.py"),
    ],
)
def test_a_program_that_is_not_there_is_said_before_anything_runs(argv, says):
    with pytest.raises(UsageError, match=re.escape(says)):
        Server(argv=argv).check()
    Server(argv=["{python}", "-m", "http.server", "{port}"]).check()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("{cache}", "{cach}", "s.yaml:1: workload: the baseline cannot run: {cach} is no parameter: did you mean {ca"),
        ("--port, \"{port}\", ", "", "nothing tells the server its port: write {port} into argv"),
        ("throughput_requests", "goodput_requests", "s.yaml:9: objectives.0.maximize: goodput_requests_per_s is not "
         "known without workload.slo"),
        ("throughput_requests", "slo_rate", "is not known without workload.find_rate: true"),
        ("throughput_requests_per_s", "ttft_p95_s", "not known without workload.api: chat or completions"),
        ("load: {arrivals: closed}", "slo: {ttft_s: 1 s}", "answers of api: json come whole, so bound latency_s"),
        ("load: {arrivals: closed}", "slo: {latency_s: 200 mm}", "s.yaml:5: workload.slo.latency_s: 'mm' is not"),
    ],
)  # fmt: skip
def test_mistakes_in_a_file_are_said_where_they_are(tmp_path, old, new, says):
    file = tmp_path / "s.yaml"
    file.write_text(FILE.replace(old, new))
    with pytest.raises(UsageError) as caught:
        load(file, (), Machine(gpus=0, cpu_cores=2))
    assert says in str(caught.value)
