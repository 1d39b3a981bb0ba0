"""What takes long is done by a process of its own: real studies and profiles, killed and resumed."""

import json
import subprocess
import sys
import time

import psutil
import pytest

from autotuner.daemon.working import work
from autotuner.errors import MachineError
from autotuner.store import open_record

STUDY = """
name: speed
workload: {kind: replay, step_s: "0.004 / (1 + fast)"}
probes: []
parameters:
  fast: {int: [0, 1], default: 0, live: true}
objectives: [{maximize: throughput_tokens_per_s}]
budget: {trials: 2, max_pairs: 6}
protocol:
  {block_s: 0.005, warmup_min_s: 0.01, warmup_max_s: 0.1, min_measure_s: 0.03, max_measure_s: 0.1, time_limit_s: 20}
"""


@pytest.fixture
def request_of(tmp_path):
    (tmp_path / "speed.yaml").write_text(STUDY)
    db = str(tmp_path / "record.db")

    def make(do, **more):
        return {"do": do, "file": str(tmp_path / "speed.yaml"), "name": "s", "db": db, "overrides": [], **more}

    return make


@pytest.mark.slow
def test_a_study_that_is_stopped_is_taken_up(request_of, tmp_path):
    asked = []

    def soon():
        asked.append(True)
        with open_record(str(tmp_path / "record.db"), create=True) as record:
            return "s" in record.names()

    slow = ["protocol.min_measure_s=0.3", "protocol.max_measure_s=0.5"]
    assert work(request_of("start", overrides=slow), tmp_path / "log", soon) is None
    children = psutil.Process().children(recursive=True)  # a tracker of shared memory may be dead and not yet waited for
    assert [child for child in children if child.status() != psutil.STATUS_ZOMBIE] == []
    assert work(request_of("resume"), tmp_path / "log", lambda: False) == {}
    with open_record(str(tmp_path / "record.db")) as record:
        assert record.study("s").events("finished")


@pytest.mark.slow
def test_what_is_wrong_with_it_is_one_sentence(request_of, tmp_path):
    with pytest.raises(MachineError) as raised:
        work(request_of("start", overrides=["budget.trails=3"]), tmp_path / "log", lambda: False)
    assert "trails" in raised.value.message
    assert raised.value.hint == f"see {tmp_path / 'log'}"


@pytest.mark.slow
def test_it_dies_with_the_daemon(request_of, tmp_path):
    """Else two studies would run at once after a crash, and disturb each other."""
    program = (
        "import sys, json, pathlib; from autotuner.daemon.working import work; "
        "work(json.loads(sys.argv[1]), pathlib.Path(sys.argv[2]), lambda: False)"
    )
    slow = ["protocol.min_measure_s=30", "protocol.max_measure_s=50", "protocol.time_limit_s=90"]
    words = [json.dumps(request_of("start", overrides=slow)), str(tmp_path / "log")]
    daemon = subprocess.Popen([sys.executable, "-c", program, *words])
    try:
        while len(started := psutil.Process(daemon.pid).children(recursive=True)) < 2:
            assert daemon.poll() is None
            time.sleep(0.05)
    finally:
        daemon.kill()
        daemon.wait()
    _, alive = psutil.wait_procs(started, timeout=20)
    assert alive == []


@pytest.mark.slow
def test_what_serves_is_profiled(request_of, tmp_path):
    found = work(request_of("profile", config={"fast": 0}, folder=str(tmp_path / "p")), tmp_path / "log", lambda: False)
    assert (tmp_path / "p" / "profile.html").samefile(found["page"])
    assert isinstance(found["findings"], list)
