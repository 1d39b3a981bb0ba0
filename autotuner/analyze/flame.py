"""Sampled stacks: what py-spy's raw format says, as a tree to draw and as a file for speedscope."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Where a thread waits for data, a lock or the device: files of the standard library and of torch, and in these …
_WAITING_FILES = (
    "multiprocessing/", "threading.py", "queue.py", "selectors.py", "socket.py", "subprocess.py", "concurrent/",
    "asyncio/", "torch/cuda/", "torch/utils/data/", "torch/distributed/",
)  # fmt: skip
_WAITING = frozenset({
    "poll", "select", "wait", "_wait", "_wait_for_tstate_lock", "acquire", "synchronize", "query", "_recv",
    "_recv_bytes", "recv", "recv_bytes", "get", "_try_get_data", "accept", "join", "barrier", "monitored_barrier",
})  # fmt: skip
_SPINNING = frozenset({"poll", "spin", "busy_wait", "spin_wait"})  # … and in anybody's: the name says it
_PROCESS = re.compile(r'process (\d+)(?::".*?")?;(?=process \d|thread \()')  # a command line may hold anything
_THREAD = re.compile(r"thread \((?:0x)?[0-9A-Fa-f]+\)(?:: (.+))?$")
_FRAME = re.compile(r"(.*) \((.+?)(?::(\d+))?\)$")
_OURS = ("autotuner/profiling/", "autotuner/monitor/torch/", "runpy.py", "<frozen runpy>", "<frozen importlib")


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack that was seen.

    Attributes:
        process: "main process", or "worker 1" for one that it started.
        thread: Its name.
        frames: "function (file:line)", outermost first.
        samples: How often.
    """

    process: str
    thread: str
    frames: tuple[str, ...]
    samples: int


@dataclass(frozen=True, slots=True)
class Node:
    """A frame in a flame graph; `samples` includes those of its children."""

    name: str
    samples: int
    children: tuple["Node", ...] = ()


def parse_raw(text: str) -> tuple[Stack, ...]:
    """The stacks of `py-spy record -f raw --threads --subprocesses`: `process;…;thread;frame;… count` a line.

    Frames of this program around the steps are left out. Lines of another form are passed over: a torn sample is no
    error.
    """
    workers: dict[str, str] = {}
    found: list[Stack] = []
    for line in text.splitlines():
        path, _, count = line.rpartition(" ")
        if path and count.isdecimal():
            found.append(_stack(path, int(count), workers))
    return tuple(
        sorted(found, key=lambda s: (s.process != "main process", s.process, s.thread != "MainThread", s.thread))
    )


def _stack(path: str, samples: int, workers: dict[str, str]) -> Stack:
    """`workers` collects the names of the processes that were started, in order of their appearance."""
    pids: list[str] = []
    while match := _PROCESS.match(path):
        pids.append(match[1])
        path = path[match.end() :]
    rest = path.split(";")
    thread = "MainThread"
    if match := _THREAD.match(rest[0]):
        thread = match[1] or "unnamed thread"
        rest.pop(0)
    process = "main process"
    if len(pids) > 1:
        process = workers.setdefault(pids[-1], f"worker {len(workers) + 1}")
    return Stack(process, thread, tuple(_trim(rest)), samples)


def _trim(frames: Sequence[str]) -> Sequence[str]:
    """The frames below the last one of this program; a worker process of the workload keeps what is its own."""
    last = max((i for i, frame in enumerate(frames) if any(ours in frame for ours in _OURS)), default=-1)
    return frames[last + 1 :] or ["autotune's own loop"]


def tree(stacks: Iterable[Stack]) -> Node:
    """All stacks as one tree: processes, their threads, their frames; larger ones first."""
    return _node("all", [((s.process, s.thread, *s.frames), s.samples) for s in stacks])


def _node(name: str, paths: Sequence[tuple[tuple[str, ...], int]]) -> Node:
    groups: dict[str, list[tuple[tuple[str, ...], int]]] = defaultdict(list)
    for path, samples in paths:
        if path:
            groups[path[0]].append((path[1:], samples))
    children = tuple(_node(child, below) for child, below in groups.items())
    total = sum(samples for _, samples in paths)
    return Node(name, total, tuple(sorted(children, key=lambda node: (-node.samples, node.name))))


def main_samples(stacks: Iterable[Stack]) -> list[Stack]:
    """Those of the thread that ran the steps."""
    return [stack for stack in stacks if stack.process == "main process" and stack.thread == "MainThread"]


def waits(frame: str) -> bool:
    """Whether a thread whose innermost frame this is waits for something.

    >>> waits("_ConnectionBase.poll (multiprocessing/connection.py:257)"), waits("Image.read (decode.py:3)")
    (True, False)
    """
    match = _FRAME.match(frame)
    if match is None:
        return False
    function = match[1].rpartition(".")[2]
    return function in _SPINNING or (function in _WAITING and match[2].startswith(_WAITING_FILES))


def waiting_ratio(stacks: Iterable[Stack]) -> float:
    """Share of the main thread's samples whose innermost function waits for something; 0 without samples."""
    ours = main_samples(stacks)
    total = sum(stack.samples for stack in ours)
    return sum(stack.samples for stack in ours if stack.frames and waits(stack.frames[-1])) / total if total else 0.0


def speedscope(stacks: Sequence[Stack], rate_per_s: float, name: str) -> Mapping[str, Any]:
    """The stacks as a file for https://speedscope.app: one sampled profile a thread, weights in seconds.

    The format is speedscope's documented JSON schema, `file-format-schema.json`.
    """
    places: dict[str, int] = {}
    threads: dict[tuple[str, str], list[Stack]] = defaultdict(list)
    for stack in stacks:
        threads[stack.process, stack.thread].append(stack)
        for frame in stack.frames:
            places.setdefault(frame, len(places))
    return {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "name": name,
        "exporter": "autotune",
        "activeProfileIndex": 0,
        "shared": {"frames": [_frame(text) for text in places]},
        "profiles": [
            {
                "type": "sampled",
                "name": f"{process} · {thread}",
                "unit": "seconds",
                "startValue": 0,
                "endValue": sum(stack.samples for stack in group) / rate_per_s,
                "samples": [[places[frame] for frame in stack.frames] for stack in group],
                "weights": [stack.samples / rate_per_s for stack in group],
            }
            for (process, thread), group in threads.items()
        ],
    }


def _frame(text: str) -> dict[str, Any]:
    match = _FRAME.match(text)
    if match is None:
        return {"name": text}
    return {"name": match[1], "file": match[2]} | ({"line": int(match[3])} if match[3] else {})
