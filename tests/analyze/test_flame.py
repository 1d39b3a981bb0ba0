"""Sampled stacks. The lines have the form of py-spy 0.4's raw output; the paths are made up."""

import pytest

from autotuner.analyze import flame

RAW = """\
process 10:"python -m autotuner.profiling.child /x/request.json";thread (10): MainThread;<module> (autotuner/profiling/child.py:9);step (autotuner/profiling/child.py:5);Net.forward (net.py:7);poll (select.py:3) 30
process 10:"python -m autotuner.profiling.child /x/request.json";thread (10): MainThread;step (autotuner/profiling/child.py:5);Net.forward (net.py:8) 10
process 10:"python -m autotuner.profiling.child /x/request.json";thread (0x7F): Thread-1 (feed);run (threading.py:1) 5
process 10:"python";process 12:"python";thread (12): MainThread;_worker_loop (torch/utils/data/_utils/worker.py:1);Data.__getitem__ (data.py:6) 40
process 10:"python";process 13:"python -c "x="y";z"";thread (13): MainThread;Data.__getitem__ (data.py:6) 2
a torn line
"""  # noqa: E501


def test_stacks_know_their_process_and_thread():
    stacks = flame.parse_raw(RAW)
    assert [(s.process, s.thread, s.samples) for s in stacks] == [
        ("main process", "MainThread", 30),
        ("main process", "MainThread", 10),
        ("main process", "Thread-1 (feed)", 5),
        ("worker 1", "MainThread", 40),
        ("worker 2", "MainThread", 2),
    ]


def test_this_programs_own_frames_are_left_out():
    assert flame.parse_raw(RAW)[-1].frames == ("Data.__getitem__ (data.py:6)",)
    assert flame.parse_raw(RAW)[0].frames == ("Net.forward (net.py:7)", "poll (select.py:3)")


def test_a_tree_adds_up():
    root = flame.tree(flame.parse_raw(RAW))
    assert (root.samples, [child.name for child in root.children]) == (87, ["main process", "worker 1", "worker 2"])

    def check(node):
        assert sum(child.samples for child in node.children) <= node.samples
        for child in node.children:
            check(child)

    check(root)


def test_waiting_is_judged_by_the_innermost_function():
    assert flame.waiting_ratio(flame.parse_raw(RAW)) == 0.75
    assert flame.waiting_ratio(()) == 0.0


def test_a_speedscope_file_follows_its_schema():
    """Checked against the rules of speedscope's file-format-schema.json that concern sampled profiles."""
    stacks = flame.parse_raw(RAW)
    file = flame.speedscope(stacks, 100.0, "x")
    frames = file["shared"]["frames"]
    assert all(set(frame) <= {"name", "file", "line", "col"} and isinstance(frame["name"], str) for frame in frames)
    assert {"name": "poll", "file": "select.py", "line": 3} in frames
    assert len(file["profiles"]) == 4
    for profile in file["profiles"]:
        assert (profile["type"], profile["unit"], profile["startValue"]) == ("sampled", "seconds", 0)
        assert len(profile["samples"]) == len(profile["weights"])
        assert profile["endValue"] == pytest.approx(sum(profile["weights"]))
        assert all(0 <= index < len(frames) for sample in profile["samples"] for index in sample)
    assert sum(profile["endValue"] for profile in file["profiles"]) == pytest.approx(0.87)
