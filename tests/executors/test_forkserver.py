"""The server's side, as far as no healthy machine shows it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autotuner.executors import forkserver
from autotuner.executors.server import ForkServer
from autotuner.monitor import host


def test_worker_that_cannot_be_killed_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forkserver, "_wait", lambda pid: None)  # as a process in state D does
    monkeypatch.setattr(forkserver, "_sweep", lambda living: None)
    monkeypatch.setattr(forkserver, "KILL_LIMIT_S", 0.2)
    with subprocess.Popen(["sleep", "60"]) as worker:
        assert forkserver._end(worker.pid, 0.0, set()) is None
        assert worker.wait(10) == -signal.SIGKILL, "although it leads no group"


def test_strays_are_found_without_the_kernels_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.processes, "_kernel_lists_children", lambda: False)
    listed = host.processes._listed_children
    monkeypatch.setattr(host.processes, "_listed_children", lambda pid: [])
    with subprocess.Popen(["sleep", "60"]) as stray:
        others = set(listed(os.getpid())) - {stray.pid}  # a test may share its process with others
        assert set(host.children(os.getpid())) == {stray.pid, *others}
        forkserver._sweep(others)
        until_s = time.monotonic() + 10
        while stray.poll() is None and time.monotonic() < until_s:
            time.sleep(0.01)
        assert not Path(f"/proc/{stray.pid}").exists()


PROGRAM = """
import os, socket, sys
from autotuner.executors import child, forkserver

def work(connection):
    sys.stdout.write("nobody reads this")

child.work = work
control = socket.socketpair()[0]
job_socket = os.open(os.devnull, os.O_RDWR)
unread, output = os.pipe()
os.close(unread)
before = os.getpid()
try:
    pid = forkserver._fork_worker(control, job_socket, output)
finally:
    if os.getpid() != before:
        os._exit(99)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_worker_whose_output_nobody_reads_leaves_by_itself() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() in (["0"], ["1"]), "99: it came back into the server's stack"  # 1 if unbuffered


def test_server_marks_its_family_and_lets_torch_ask_nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "looks_around.py").write_text(
        "import os, pathlib\nnames = 'AUTOTUNE_SERVER', 'PYTORCH_NVML_BASED_CUDA_CHECK'\n"
        "pathlib.Path(__file__).with_name('seen').write_text(' '.join(map(os.environ.get, names)))"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.delenv("PYTORCH_NVML_BASED_CUDA_CHECK", raising=False)
    server = ForkServer(("looks_around",))
    try:
        server._await_ready()
        assert (tmp_path / "seen").read_text() == f"{server._process.pid} 1"
    finally:
        server.stop()
