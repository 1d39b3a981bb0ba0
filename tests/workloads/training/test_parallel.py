"""Real processes over gloo: the gradients of one process in every mode, what is sent, and who leaves when one dies."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from autotuner.workloads.training.parallel import Degrees, refusal

PROGRAM = Path(__file__).with_name("parallel_ranks.py")
LIMIT_S = 150
ROUNDING = 5e-6  # of float32 sums in another order, relative; a mistake in averaging is 0.1 and more
REPLICATED = ["large", "small", "large after", "small after"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def run_ranks(ranks: int, *checks: str) -> list[dict]:
    """What every rank says about the checks; a rank that is meant to die says nothing about the last."""
    ports = ",".join(str(free_port()) for _ in checks)
    environment = {**os.environ, "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1"}
    with TemporaryDirectory() as folder:
        program = subprocess.Popen(
            [sys.executable, str(PROGRAM), folder, ports, *checks], env=environment, start_new_session=True
        )
        try:
            program.wait(LIMIT_S)
            return [json.loads(Path(folder, str(rank)).read_text().splitlines()[-1]) for rank in range(ranks)]
        finally:
            if program.poll() is None:
                os.killpg(program.pid, signal.SIGKILL)
                program.wait()


@pytest.fixture(scope="module")
def two():
    return run_ranks(2, "data", "tensor", "die")


@pytest.fixture(scope="module")
def four():
    return run_ranks(4, "both")


def assert_exact(modes):
    far = {
        (mode, what): found[what]
        for mode, found in modes.items()
        for what in ("gradient", "loss", "norm")
        if not found[what] < ROUNDING
    }
    assert far == {}


@pytest.mark.parametrize("check", ["data", "tensor"])
def test_two_ranks_train_as_one_does(two, check):
    for rank in two:
        assert_exact(rank[check]["modes"])


def test_data_ranks_take_different_slices_and_tensor_ranks_the_same(two):
    for check, ranks in (("data", [0, 1]), ("tensor", [0, 0])):
        assert [{mode["data_rank"] for mode in rank[check]["modes"].values()} for rank in two] == [{r} for r in ranks]


def test_two_data_ranks_of_two_tensor_ranks_train_as_one_does(four):
    for number, rank in enumerate(four):
        assert_exact(rank["both"]["modes"])
        assert {mode["data_rank"] for mode in rank["both"]["modes"].values()} == {number // 2}


def test_exposed_communication_is_a_part_of_the_step(two):
    for rank in two:
        for name, mode in rank["data"]["modes"].items():
            assert 0 < mode["exposed_s"] < mode["step_s"], name
        assert {mode["exposed_s"] for mode in rank["tensor"]["modes"].values()} == {None}, "not measured, not guessed"


def test_the_bucket_sets_the_number_of_all_reduces(two):
    counts = two[0]["data"]["all_reduces"]
    assert counts["small"]["plain"] > counts["large"]["plain"] + 3
    assert counts["small after"]["plain"] > counts["large after"]["plain"] + 3


@pytest.mark.parametrize("mode", REPLICATED)
def test_only_the_last_micro_batch_is_reduced(two, mode):
    counts = two[0]["data"]["all_reduces"][mode]
    assert counts["accumulated"] == counts["plain"]


@pytest.mark.parametrize("mode", REPLICATED)
def test_without_communication_nothing_is_sent(two, mode):
    for rank in two:
        counts = rank["data"]["all_reduces"][mode]
        assert (counts["silent"], counts["left"], counts["silent_exposed_s"]) == (0, 0.0, 0.0)
        assert counts["again"] == counts["plain"], "as before when it is over"
        assert counts["same_weights"], "though the ranks trained apart"


def test_zero2_gathers_once_a_step_and_zero3_for_every_pass(two):
    layers, micro_batches = 2, 2
    assert two[0]["data"]["gathered"] == {
        "zero2": layers + 1,
        "zero3": micro_batches * (layers + 1 + layers),  # the rest stays from forward to backward
    }


def test_gradients_are_reduced_in_float32(two):
    assert two[0]["data"]["bfloat16 gradients are"] == "torch.float32"


def test_a_model_that_cannot_be_split_says_so_by_name(two):
    strange, linear, indivisible = two[0]["tensor"]["unsupported"]
    assert "layers.*.mlp.gate_proj" in strange
    assert "sideways" in strange
    assert "Linear has no plan" in linear
    assert "num_key_value_heads 1" in indivisible


def test_when_one_rank_dies_the_other_raises_and_does_not_hang(two):
    assert "Connection" in two[0]["die"]["error"], "closed or reset, and not the time limit"
    assert "die" not in two[1]


SHAPE = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96}


@pytest.mark.parametrize(
    ("degrees", "ranks", "word"),
    [
        (Degrees(), 1, ""),
        (Degrees(data=2), 2, ""),
        (Degrees(data=2, sharding="zero3"), 2, ""),
        (Degrees(tensor=2), 2, ""),
        (Degrees(data=2, tensor=2, sharding="zero2"), 4, ""),
        (Degrees(data=2, tensor=2, overlap=False), 4, ""),
        (Degrees(data=2, tensor=2), 4, "overlap"),
        (Degrees(tensor=4), 4, "does not divide num_key_value_heads 2"),
        (Degrees(tensor=3), 3, "does not divide num_attention_heads 4"),
        (Degrees(data=2), 1, "needs 2 processes"),
        (Degrees(data=0), 1, "at least 1"),
        (Degrees(bucket_bytes=0), 1, "at least 1"),
        (Degrees(tensor=2, sharding="zero2"), 2, "zero2 shards over data ranks"),
    ],
    ids=str,
)
def test_refusal_says_why_in_one_line(degrees, ranks, word):
    reason = refusal(degrees, ranks, SHAPE)
    assert "\n" not in reason
    assert word in reason if word else reason == ""


def test_a_model_with_fewer_keys_is_checked_by_those_it_has():
    assert refusal(Degrees(tensor=2), 2, {"num_key_value_heads": None}) == ""
