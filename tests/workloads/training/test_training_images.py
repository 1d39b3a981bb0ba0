"""Images in class folders become pixels: real JPEG, PNG and WebP files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from autotuner.errors import InvalidConfigError
from autotuner.workloads.training.data import Data
from autotuner.workloads.training.images import DEVIATION, MEAN
from autotuner.workloads.training.samples import open_samples

Image = pytest.importorskip("PIL.Image")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name, size, mode in [
        ("cat/1.jpg", (60, 40), "RGB"), ("cat/2.PNG", (32, 32), "RGBA"), ("cat/old/3.png", (50, 20), "L"),
        ("dog/1.webp", (20, 70), "RGB"), ("dog/2.png", (9, 9), "P"), ("dog/notes.csv", (0, 0), ""),
    ]:  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if not mode:
            (tmp_path / name).write_text("not an image, and not asked")
            continue
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).convert(mode).save(tmp_path / name)
    return tmp_path


def test_classes_are_the_folders_and_pixels_are_normalised(folder: Path) -> None:
    data = Data(path=str(folder), image_size=16)
    data.check()
    samples = open_samples(data)
    assert (len(samples), samples.classes) == (5, 2)
    batch = samples.collate(samples.__getitems__(range(5)))
    assert batch["pixel_values"].shape == (5, 3, 16, 16)
    assert batch["pixel_values"].dtype == torch.float32
    assert batch["labels"].tolist() == [0, 0, 0, 1, 1]
    bytes_ = (batch["pixel_values"][0].permute(1, 2, 0).numpy() * DEVIATION + MEAN) * 255
    assert 0 <= bytes_.min() < 100 < 150 < bytes_.max() <= 255.001
    assert np.abs(bytes_ - bytes_.round()).max() < 0.01, "the bytes that were decoded"


def test_a_batch_has_the_bits_of_its_samples(folder: Path) -> None:
    samples = open_samples(Data(path=str(folder), image_size=24))
    one_by_one = samples.collate([samples[index] for index in range(5)])
    at_once = samples.collate(samples.__getitems__(range(5)))
    assert all(torch.equal(one_by_one[name], at_once[name]) for name in one_by_one)
    worst = samples.worst_batch(7)
    assert worst["pixel_values"].shape == (7, 3, 24, 24)
    assert worst["labels"].shape == (7,)


@pytest.mark.parametrize("damage", ["cut", "no image", "empty"])
def test_a_broken_image_is_named_in_one_line(folder: Path, damage: str) -> None:
    file = folder / "cat" / "1.jpg"
    file.write_bytes({"cut": file.read_bytes()[:300], "no image": b"words", "empty": b""}[damage])
    samples = open_samples(Data(path=str(folder), image_size=16))
    with pytest.raises(InvalidConfigError, match=r"cat/1\.jpg cannot be decoded") as caught:
        samples[0]
    assert "\n" not in str(caught.value)
