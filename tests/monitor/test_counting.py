"""Counts of real torch operations against what can be worked out by hand."""

import pytest
import torch

from autotuner.monitor.torch import explain_step
from autotuner.monitor.torch.counting import Cache, Counts, count_step
from autotuner.monitor.torch.run_ahead import run_ahead

CACHE_BYTES = 32 * 2**20


def count(step, cache_bytes=CACHE_BYTES):
    with torch.inference_mode():
        return count_step(step, "cpu", cache_bytes)


def test_products_are_two_flops_a_multiply_add_by_format():
    a, b = torch.randn(64, 128), torch.randn(128, 32)
    half = a.bfloat16()
    counts = count(lambda: (a @ b, half @ b.bfloat16()))
    assert counts["step_flops_float32"] == counts["step_flops_bfloat16"] == 2 * 64 * 128 * 32
    assert counts["step_flops"] == 2 * counts["step_flops_float32"]


def test_linear_layers_attention_and_convolutions_count():
    x, layer = torch.randn(5, 7, 16), torch.nn.Linear(16, 24)
    assert count(lambda: layer(x))["step_flops"] == 2 * 5 * 7 * 16 * 24
    q = torch.randn(2, 4, 10, 8)
    attend = torch.nn.functional.scaled_dot_product_attention
    assert count(lambda: attend(q, q, q))["step_flops"] == 2 * 2 * 2 * 4 * 10 * 10 * 8
    image, filters = torch.randn(1, 3, 8, 8), torch.randn(4, 3, 3, 3)
    assert count(lambda: torch.nn.functional.conv2d(image, filters))["step_flops"] == 2 * 6 * 6 * 4 * 3 * 3 * 3
    assert count(lambda: torch.einsum("ij,kj->ik", layer.weight, layer.weight))["step_flops"] == 2 * 24 * 24 * 16


def test_matrix_vector_products_and_fused_encoders_count():
    matrix, vector = torch.randn(32, 16), torch.randn(16)
    assert count(lambda: matrix @ vector)["step_flops"] == 2 * 32 * 16
    layer = torch.nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0, batch_first=True).eval()
    x = torch.randn(3, 5, 16)
    fused = count(lambda: layer(x))
    products = 3 * 16 * 16 + 16 * 16 + 2 * 16 * 24
    assert fused["step_flops"] == 2 * 3 * 5 * products + 4 * 3 * 5**2 * 16
    assert fused["step_operations"] == 1, "torch's fast path runs the layer whole"


def test_backward_passes_count():
    x, layer = torch.randn(32, 16), torch.nn.Linear(16, 24, bias=False)
    counts = count_step(lambda: layer(x).sum().backward(), "cpu", CACHE_BYTES)
    assert counts["step_flops"] == 2 * (2 * 32 * 16 * 24)  # forward, and the gradient of the weights


def test_bytes_are_what_does_not_fit_the_cache():
    large, small = torch.randn(4 * 2**20), torch.randn(2**18)
    target = torch.empty_like(large)
    assert count(lambda: target.copy_(large), 2**20)["step_bytes"] == 2 * large.nbytes
    assert count(lambda: small.add_(1.0))["step_bytes"] == 0  # the second time it is there
    assert count(lambda: small.add_(1.0), cache_bytes=2**10)["step_bytes"] == 2 * small.nbytes


def test_a_lookup_reads_the_rows_that_it_returns():
    table, picks = torch.randn(2**16, 256), torch.arange(8)
    counts = count(lambda: torch.nn.functional.embedding(picks, table), cache_bytes=2**10)
    assert counts["step_bytes"] < 4 * 8 * 256 * 4


def test_a_table_beyond_the_cache_is_never_remembered():
    """Other rows each time, as far as anybody can know; of a small one the rows are there the second time."""
    picks, rows = torch.arange(64), torch.empty(64, 256)
    large, small = torch.randn(2**14, 256), torch.randn(128, 256)
    assert count(lambda: torch.index_select(large, 0, picks, out=rows), 2**20)["step_bytes"] == rows.nbytes
    assert count(lambda: torch.index_select(small, 0, picks, out=rows), 2**20)["step_bytes"] == 0


def test_an_expanded_tensor_is_no_larger_than_its_storage():
    row = torch.randn(1024).expand(1024, 1024)
    assert count(lambda: row.sum(), cache_bytes=2**10)["step_bytes"] < 2**14


def test_time_divides_into_large_and_tiny_operations():
    a, tiny = torch.randn(700, 700), torch.ones(4)

    def step():
        for _ in range(20):
            tiny.add_(1.0)
        return a @ a

    counts = count(step)
    assert counts["step_operations"] == 21
    assert 0 < counts["step_tiny_s"] < counts["step_kernel_s"]
    only_large = count(lambda: a @ a)
    assert only_large["step_tiny_s"] == 0


def test_compiled_code_is_counted_as_it_would_run_uncompiled():
    layer, x = torch.nn.Linear(16, 16), torch.randn(4, 16)
    compiled = torch.compile(layer, backend="eager")
    compiled(x)
    assert count(lambda: compiled(x))["step_flops"] == 2 * 4 * 16 * 16


def test_a_step_without_torch_counts_nothing():
    assert explain_step(lambda: sum(range(100)), "cpu") == {}


def test_a_cache_evicts_what_was_used_least_recently():
    cache = Cache(100)
    assert [cache.missing_bytes(key, 40) for key in (1, 2, 1, 3, 1, 2)] == [40, 40, 0, 40, 0, 40]
    assert cache.missing_bytes(9, 1000) == 1000
    assert cache.missing_bytes(9, 1000) == 1000  # larger than the cache: never resident


class Mark:
    """A GPU's queue that is empty whenever `drained` says so; injected, for there is no GPU here."""

    drained = True

    def record(self):
        pass

    def query(self):
        return self.drained


@pytest.mark.parametrize("drained", [True, False])
def test_the_host_is_asked_after_every_outermost_forward_pass(drained):
    class Queue(Mark):
        pass

    Queue.drained = drained
    model, x = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)), torch.ones(1, 4)
    marks = []

    def make_mark():
        marks.append(Queue())
        return marks[-1]

    assert run_ahead(lambda: [model(x) for _ in range(3)], make_mark) == {"drained_ratio": float(drained)}
    assert len(marks) == 3
    assert run_ahead(lambda: None, make_mark) == {}
    model(x)
    assert len(marks) == 3, "the hooks are gone"


def test_a_step_that_cannot_be_counted_comes_to_its_end(monkeypatch):
    """Other ranks wait for what it sends, and the next step begins where it stopped."""

    def add(*_):
        raise RuntimeError("no storage")

    monkeypatch.setattr(Counts, "add", add)
    ended = []

    def step():
        torch.ones(2).add(1)
        ended.append(True)

    with pytest.raises(RuntimeError, match="no storage"):
        count_step(step, "cpu", 2**20)
    assert ended == [True]
