"""One process tree with a time limit: real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autotuner.errors import MachineError
from autotuner.profiling.process import run


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def wait_gone(pid):
    deadline_s = time.monotonic() + 20
    while is_there(pid) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return not is_there(pid)


def test_output_and_exit_code(tmp_path):
    log = tmp_path / "log"
    program = "import sys; print('out'); print('error', file=sys.stderr); sys.exit(3)"
    assert run("it", [sys.executable, "-c", program], log, 30) == 3
    assert sorted(log.read_text().split()) == ["error", "out"]


def test_standard_output_apart(tmp_path):
    log, out = tmp_path / "log", tmp_path / "out"
    program = "import sys; print('table'); print('noise', file=sys.stderr)"
    assert run("it", [sys.executable, "-c", program], log, 30, out) == 0
    assert (out.read_text(), log.read_text()) == ("table\n", "noise\n")


def test_a_flood_is_capped(tmp_path):
    log = tmp_path / "log"
    run("it", [sys.executable, "-c", "import os\nfor _ in range(64): os.write(1, b'x' * 2**18)"], log, 60)
    assert log.stat().st_size < 2**21


@pytest.mark.parametrize("leave", ["", "os.setsid()"])
def test_the_time_limit_ends_the_whole_tree(tmp_path, leave):
    pids = tmp_path / "pids"
    program = (
        f"import os, time\nchild = os.fork()\nif not child:\n    {leave or 'pass'}\n"
        f"open({str(pids)!r}, 'a').write(f'{{os.getpid()}} ')\ntime.sleep(60)"
    )
    with pytest.raises(MachineError, match=r"the thing gave no result within 1\.5 s"):
        run("the thing", [sys.executable, "-c", program], tmp_path / "log", 1.5)
    started = [int(pid) for pid in pids.read_text().split()]
    assert len(started) == 2
    assert all(wait_gone(pid) for pid in started)


def test_an_orphan_that_holds_the_pipe_holds_nobody_up_and_is_ended(tmp_path):
    pids = tmp_path / "pids"
    program = (
        f"import os, time\nif not os.fork():\n    open({str(pids)!r}, 'w').write(str(os.getpid()))\n    time.sleep(60)"
    )
    program += f"\nwhile not os.path.exists({str(pids)!r}) or not open({str(pids)!r}).read(): time.sleep(0.01)"
    began_s = time.monotonic()
    assert run("it", [sys.executable, "-c", program], tmp_path / "log", 40) == 0
    assert time.monotonic() - began_s < 30
    assert wait_gone(int(pids.read_text()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_while_it_starts_ends_it(tmp_path, monkeypatch, number):
    started = []

    class Interrupted(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self.pid)
            signal.raise_signal(number)

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            run("it", [sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log", 60)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert wait_gone(started[0])


def test_what_cannot_start_is_said(tmp_path):
    with pytest.raises(MachineError, match="nsys cannot be started"):
        run("nsys", [str(tmp_path / "nothing")], tmp_path / "log", 5)
