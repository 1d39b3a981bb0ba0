"""Images in class folders: decoded, cropped to a square, resized and normalised when asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotuner.errors import InvalidConfigError
from autotuner.workloads.training.data import Data, classes_of

MEAN = np.asarray((0.485, 0.456, 0.406), dtype=np.float32)  # of ImageNet's red, green and blue, which
DEVIATION = np.asarray((0.229, 0.224, 0.225), dtype=np.float32)  # models of images commonly expect


class Images:
    """A map data set of images [3, side, side], float32, and their classes."""

    def __init__(self, path: str, files: Sequence[Path], data: Data) -> None:
        names = classes_of(path, tuple(files))
        number_of = {name: number for number, name in enumerate(names)}
        root = Path(path).expanduser()
        self._files, self._side = files, data.image_size
        self._labels = np.asarray([number_of[file.relative_to(root).parts[0]] for file in files], dtype=np.int64)
        self.classes: int | None = len(names)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One image, decoded and normalised."""
        return self._row(normalised(self._pixels(index)), index)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Several images, normalised all at once."""
        pixels = normalised(np.stack([self._pixels(index) for index in indices]))
        return [self._row(image, index) for image, index in zip(pixels, indices, strict=True)]

    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """`pixel_values` [images, 3, side, side] and `labels` [images]."""
        import torch

        return {name: torch.stack([row[name] for row in rows]) for name in ("pixel_values", "labels")}

    def worst_batch(self, size: int) -> dict[str, Any]:
        """All images have one shape: this is an ordinary batch."""
        return self.collate([self[0]] * size)

    def _row(self, image: NDArray[np.float32], index: int) -> dict[str, Any]:
        import torch

        return {"pixel_values": torch.from_numpy(image), "labels": torch.tensor(self._labels[index])}

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        """The image's middle as a square [side, side, 3]."""
        from PIL import Image, ImageOps

        file, square = self._files[index], (self._side, self._side)
        try:
            with Image.open(file) as image:
                return np.asarray(ImageOps.fit(image.convert("RGB"), square, Image.Resampling.BILINEAR))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # a broken PNG's is Syntax
            reason = " ".join(str(error).split())[:120]
            raise InvalidConfigError(f"data: {file} cannot be decoded: {reason}", "remove or replace it") from error


def normalised(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Bytes [..., side, side, 3] as contiguous numbers [..., 3, side, side] of mean 0 and deviation 1."""
    scaled = (pixels.astype(np.float32) / np.float32(255) - MEAN) / DEVIATION
    return np.ascontiguousarray(np.moveaxis(scaled, -1, -3))
