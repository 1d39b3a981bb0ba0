"""The same global batches however they are loaded; real worker processes, which are gone afterwards."""

import json
import multiprocessing
import os
import threading
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autotuner.errors import AutotuneError, InvalidConfigError, UsageError
from autotuner.workloads.training.data import Data
from autotuner.workloads.training.feed import Feed, GlobalBatches, Loading
from autotuner.workloads.training.samples import open_samples

SAMPLES, GLOBAL_BATCH = 22, 8  # 2 steps an epoch, 6 samples dropped
VARIANTS = {
    "micro-batches": Loading(2),
    "batched": Loading(8, collate="batch"),
    "workers": Loading(4, workers=2),
    "persistent": Loading(2, workers=2, prefetch_factor=1, persistent_workers=True, collate="batch"),
    "pinned": Loading(8, workers=1, prefetch_factor=4, pin_memory=True),
}


class Numbers:
    """Samples that say who they are, and who made them."""

    classes = None

    def __init__(self, count: int = SAMPLES, broken: int = -1) -> None:
        self.count, self.broken = count, broken

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index == self.broken:
            raise InvalidConfigError(f"data: sample {index} is torn", "mend it")
        who = [index, os.getpid(), torch.get_num_threads(), torch.initial_seed() % 1000, 0]
        return {"who": torch.tensor(who)}

    def __getitems__(self, indices):
        rows = [self[index] for index in indices]
        for row in rows:
            row["who"][4] = 1  # at once
        return rows

    def collate(self, rows):
        return {"who": torch.stack([row["who"] for row in rows])}

    def worst_batch(self, size):
        return self.collate([self[0]] * size)


def who(batches) -> list[list[int]]:
    return torch.cat([batch["who"] for batch in batches]).tolist()


def numbers(batches) -> list[int]:
    return [row[0] for row in who(batches)]


def processes(batches) -> set[int]:
    return {row[1] for row in who(batches)}


@pytest.fixture(autouse=True)
def nothing_left():
    threads = set(threading.enumerate())
    yield
    assert multiprocessing.active_children() == []
    assert {
        thread for thread in set(threading.enumerate()) - threads if thread.is_alive() and not thread.daemon
    } == set()


@pytest.fixture(scope="module")
def expected() -> list[list[int]]:
    with Feed(Numbers(), GLOBAL_BATCH, seed=3) as feed:
        return [numbers(feed.take(Loading(8))) for _ in range(7)]


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 9))
def test_an_epoch_takes_every_sample_at_most_once_and_the_next_is_shuffled_anew(samples, global_batch, seed) -> None:
    if samples < global_batch:
        with pytest.raises(UsageError, match=f"{samples} samples, less than one global batch of {global_batch}"):
            GlobalBatches(samples, global_batch, seed)
        return
    batches = GlobalBatches(samples, global_batch, seed)
    steps = batches.steps_per_epoch
    epochs = [[batches.indices(epoch * steps + step).tolist() for step in range(steps)] for epoch in range(2)]
    for epoch in epochs:
        flat = [index for batch in epoch for index in batch]
        assert len(flat) == len(set(flat)) == samples - samples % global_batch
        assert all(len(batch) == global_batch for batch in epoch)
    assert epochs[0] != epochs[1] or samples < 9
    assert batches.indices(0).tolist() == epochs[0][0], "and back"


@pytest.mark.parametrize("loading", VARIANTS.values(), ids=VARIANTS)
def test_the_same_samples_however_they_are_loaded(expected, loading) -> None:
    with Feed(Numbers(), GLOBAL_BATCH, seed=3) as feed:
        assert feed.steps_per_epoch == 2
        for step in range(7):
            batches = feed.take(loading)
            assert [len(batch["who"]) for batch in batches] == [loading.micro_batch] * (8 // loading.micro_batch)
            assert numbers(batches) == expected[step]
            assert {row[4] for row in who(batches)} == {int(loading.collate == "batch")}
            assert (os.getpid() in processes(batches)) == (loading.workers == 0)
            if loading.workers:
                assert {row[2] for row in who(batches)} == {1}, "threads of a worker"
            assert feed.waited_s > 0
            assert feed.step == step + 1


def test_a_change_in_mid_epoch_goes_on_at_the_next_global_batch(expected) -> None:
    with Feed(Numbers(), GLOBAL_BATCH, seed=3) as feed:
        order = [VARIANTS[name] for name in ("workers", "persistent", "micro-batches", "persistent", "pinned")]
        for step in range(7):
            assert numbers(feed.take(order[step % 5])) == expected[step]
            if step == 4:
                feed.idle()
        feed.reset(3)
        assert numbers(feed.take(order[0])) == expected[0]
        feed.reset(4)
        assert numbers(feed.take(order[0])) != expected[0]


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_share_the_global_batch_in_order(expected, ranks) -> None:
    feeds = [Feed(Numbers(), GLOBAL_BATCH, seed=3, rank=rank, ranks=ranks) for rank in range(ranks)]
    for step in range(5):
        shares = [numbers(feed.take(Loading(2))) for feed in feeds]
        assert [index for share in shares for index in share] == expected[step]
        assert {len(share) for share in shares} == {8 // ranks}


@pytest.mark.parametrize("persistent", [False, True])
def test_only_persistent_workers_outlive_an_epoch_and_idleness(persistent) -> None:
    loading = Loading(8, workers=1, persistent_workers=persistent)
    with Feed(Numbers(), GLOBAL_BATCH, seed=3) as feed:
        first, second, third = (processes(feed.take(loading)) for _ in range(3))
        assert first == second
        assert (first == third) == persistent
        feed.idle()
        assert len(multiprocessing.active_children()) == int(persistent)
        feed.idle()
        assert (processes(feed.take(loading)) == third) == persistent


def test_closing_ends_workers_to_which_somebody_holds_on() -> None:
    feed = Feed(Numbers(), GLOBAL_BATCH, seed=3)
    feed.take(VARIANTS["persistent"])
    held = feed._loader._iterator  # as torch itself does where it pins for a GPU
    feed.idle()
    feed.close()
    assert held is not None
    assert multiprocessing.active_children() == []


def test_idle_takes_back_everything_that_was_handed_out(tmp_path: Path) -> None:
    class Counted(Numbers):
        def __getitem__(self, index):
            with (tmp_path / "made").open("a") as file:
                file.write("x")
            return super().__getitem__(index)

    for persistent in (False, True):
        with Feed(Counted(800), GLOBAL_BATCH, seed=3) as feed:
            feed.take(Loading(2, workers=2, prefetch_factor=8, persistent_workers=persistent))
            feed.idle()
            made = (tmp_path / "made").stat().st_size
            threading.Event().wait(0.2)
            assert (tmp_path / "made").stat().st_size == made


def test_workers_are_seeded_alike_every_time_and_leave_the_models_seed_alone() -> None:
    seeds, torch_state = [], torch.random.get_rng_state()
    for _ in range(2):
        with Feed(Numbers(), GLOBAL_BATCH, seed=3) as feed:
            seeds.append([row[3] for _ in range(3) for row in who(feed.take(VARIANTS["workers"]))])
    assert seeds[0] == seeds[1]
    assert torch.equal(torch.random.get_rng_state(), torch_state)


def test_resident_batches_are_the_last_ones_and_the_position_stays(expected) -> None:
    loading = VARIANTS["workers"]
    with Feed(Numbers(), GLOBAL_BATCH, seed=3) as feed:
        last = feed.take(loading)
        with feed.resident():
            for _ in range(3):
                again = feed.take(loading)
                assert all(
                    a is b
                    for one, two in zip(last, again, strict=True)
                    for a, b in zip(one.values(), two.values(), strict=True)
                )
                assert feed.step == 1
        assert numbers(feed.take(loading)) == expected[1]
    with Feed(Numbers(), GLOBAL_BATCH, seed=3) as feed, feed.resident():
        assert numbers(feed.take(loading)) == numbers(feed.take(loading)) == expected[0], "nothing was loaded before"


@pytest.mark.parametrize("loading", VARIANTS.values(), ids=VARIANTS)
def test_a_broken_sample_is_one_line_whoever_found_it(loading) -> None:
    with Feed(Numbers(broken=5), GLOBAL_BATCH, seed=3) as feed, pytest.raises(AutotuneError) as caught:
        [feed.take(loading) for _ in range(20)]
    assert type(caught.value) is InvalidConfigError
    assert str(caught.value) == "data: sample 5 is torn (mend it)"


@pytest.mark.parametrize("micro_batch", [0, 3, 16])
def test_a_global_batch_that_cannot_be_cut(micro_batch) -> None:
    with Feed(Numbers(), GLOBAL_BATCH, 0) as feed, pytest.raises(InvalidConfigError, match=f"of {micro_batch}"):
        feed.take(Loading(micro_batch))
    with pytest.raises(InvalidConfigError, match="cannot be shared by 3 ranks"):
        Feed(Numbers(), GLOBAL_BATCH, 0, ranks=3)


def test_pinning_without_a_gpu_neither_fails_nor_warns() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Feed(Numbers(), GLOBAL_BATCH, 0) as feed:
            for loading in (VARIANTS["pinned"], Loading(8, pin_memory=True)):
                (batch,) = feed.take(loading)
                assert batch["who"].is_pinned() == torch.accelerator.is_available()


@pytest.mark.timeout(60)  # threads of tokenizers that a fork lost would be waited for
@pytest.mark.parametrize("lengths", ["full", "natural"])
def test_real_texts_have_the_same_bits_however_they_are_loaded(tmp_path: Path, lengths, capfd, monkeypatch) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    words = [f"word{number}" * (1 + number % 7) + " end" for number in range(40)]
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps({"text": word}) for word in words))
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.train_from_iterator(words, tokenizers.trainers.BpeTrainer(vocab_size=30, show_progress=False))
    made.save(str(tmp_path / "tokenizer.json"))
    data = Data(path=str(tmp_path / "x.jsonl"), sequence_tokens=40, lengths=lengths, tokenizer=str(tmp_path))
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    taken = []
    with Feed(open_samples(data), GLOBAL_BATCH, seed=1) as feed:
        for loading in (Loading(4, collate="batch"), Loading(4, 2, collate="batch"), Loading(4, 2), Loading(4)):
            feed.reset(1)
            taken.append([batch for _ in range(6) for batch in feed.take(loading)])
    for other in taken[1:]:
        for one, two in zip(taken[0], other, strict=True):
            assert all(torch.equal(one[name], two[name]) for name in one)
    widths = {batch["input_ids"].shape[1] for batch in taken[0]}
    assert widths == {40} if lengths == "full" else len(widths) > 1
    assert "parallelism" not in capfd.readouterr().err, "tokenizers warn of a fork"
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
