"""The fork server: it has imported the heavy libraries, has touched no GPU, and forks a worker on request.

A new interpreter that imports torch and transformers needs seconds; a fork of this process needs milliseconds and is
just as isolated. It also is the undertaker: as the subreaper of everything its workers start, it can find and kill
double forks that left their process group. When its parent is gone, it kills everything and leaves.

Spoken over a SEQPACKET socket, one request and one reply at a time:
    {"op": "fork"} + [job socket, output pipe, channels to other ranks …] -> {"pid": 123}
    {"op": "end", "pid": 123, "grace_s": 2.0}  -> {"status": 0}   exit code, or -signal as in subprocess;
                                                                  null if the kernel does not let go of it
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
import time
import traceback
from multiprocessing.connection import Connection

from autotuner.monitor import host

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
MESSAGE_BYTES = 4096
MOST_DESCRIPTORS = 250  # that one message can carry: the kernel's SCM_MAX_FD is 253
KILL_LIMIT_S = 10.0  # a killed process dies at once, unless it hangs in a driver


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def serve(control: socket.socket) -> None:
    """Answer requests until the parent closes its end, then leave nothing behind."""
    workers: set[int] = set()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, MESSAGE_BYTES, MOST_DESCRIPTORS)
        if not message:
            break
        request = json.loads(message)
        if request["op"] == "fork":
            workers.add(pid := _fork_worker(control, *descriptors))
            reply: dict[str, int | None] = {"pid": pid}
        else:
            workers.discard(request["pid"])
            reply = {"status": _end(request["pid"], request["grace_s"], workers)}
        with contextlib.suppress(BrokenPipeError):  # the parent died meanwhile: the next receive says so
            control.send(json.dumps(reply).encode())
    for pid in list(workers):
        workers.discard(pid)
        _end(pid, 0.0, workers)


def _fork_worker(control: socket.socket, job_socket: int, output: int, *channels: int) -> int:
    server = os.getpid()
    pid = os.fork()
    if pid:
        for descriptor in (job_socket, output, *channels):
            os.close(descriptor)
        return pid
    failed = True
    try:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:  # it died before the line above
            os._exit(1)
        os.setsid()
        control.close()
        _redirect(output)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        from autotuner.executors.child import work

        work(Connection(job_socket), [Connection(channel) for channel in channels])
        failed = False
    finally:  # never back into the server's stack
        try:
            if failed:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:  # nobody may read the pipe any more, or the workload has closed a stream
            os._exit(int(failed))


def _redirect(output: int) -> None:
    """Stdin from nowhere, stdout and stderr into the pipe that the parent drains and caps."""
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nowhere, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(nowhere)
    os.close(output)


def _end(pid: int, grace_s: float, living: set[int]) -> int | None:
    """Wait for a worker's own end, kill what is left of its tree, and return its exit code or minus its signal.

    None when it does not die: what hangs in the kernel cannot be killed.
    """
    if (status := _wait_for(pid, grace_s)) is None:
        for member in (pid, *host.descendants(pid)):
            _kill(member)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    if status is None:
        status = _wait_for(pid, KILL_LIMIT_S)
    _sweep(living)
    return status


def _wait_for(pid: int, limit_s: float) -> int | None:
    """The status of a child that ends within the limit."""
    deadline_s = time.monotonic() + limit_s
    pause_s = 0.0005
    while (status := _wait(pid)) is None and time.monotonic() < deadline_s:
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.02)
    return status


def _wait(pid: int) -> int | None:
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 0
    return os.waitstatus_to_exitcode(status) if found else None


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _sweep(living: set[int]) -> None:
    """Kill what ended workers left: orphans come to this subreaper; those of a living worker's session are spared."""
    for _ in range(100):
        children = host.children(os.getpid())
        strays = [child for child in children if child not in living and _session(child) not in living]
        if not strays:
            return
        for stray in strays:
            for member in (stray, *host.descendants(stray)):
                _kill(member)
            _wait(stray)
        time.sleep(0.001)


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1


def main() -> None:
    """`python -m autotuner.executors.forkserver FD MODULE…`; started by the process executor only."""
    control = socket.socket(fileno=int(sys.argv[1]))
    os.environ["AUTOTUNE_SERVER"] = str(os.getpid())  # by which workers know that they are of one family
    # is_available() asks NVML then; by CUDA, it would start CUDA here, and no fork could use it
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    for module in ("autotuner.executors.child", "numpy", *sys.argv[2:]):  # numpy: every worker compares outputs
        with contextlib.suppress(ImportError):  # the worker that needs it will say so, with its log
            importlib.import_module(module)
    from autotuner.monitor.environment import fingerprint

    fingerprint("cpu", {})  # reads every package's metadata, once for all workers
    gc.collect()
    gc.freeze()  # or the first collection in a worker would copy every page that it shares with this process
    control.send(b"{}")
    serve(control)


if __name__ == "__main__":
    main()
