"""Where a transformers model comes from: a hub id, a local folder, or a configuration given inline."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotuner.errors import UsageError

HEAD_BYTES = 1 << 16


def check_source(model: str | None, config: Mapping[str, Any] | None) -> None:
    """Look whether exactly one of the two is given.

    Raises:
        ValueError: Both are or none is, or the configuration does not say of which architecture.
    """
    if (model is None) == (config is None):
        raise ValueError("give either model (a folder or hub id) or config (inline, with random weights)")
    if config is not None and "model_type" not in config:
        raise ValueError("config needs a model_type, for example llama or bert")


def check_folder(model: str | None) -> None:
    """Look, if the model is a local one, whether it is there and can be read without running its pickles.

    Raises:
        UsageError: It is not.
    """
    if model is None:
        return
    path = Path(model).expanduser()
    looks_local = model.startswith((".", "/", "~")) or path.exists()
    if looks_local and not path.exists():
        raise UsageError(f"workload.model: there is no {model}", "name a folder with config.json, or a hub id")
    if looks_local and not (path / "config.json").is_file():
        raise UsageError(f"workload.model: {model} holds no transformers model", "a folder with config.json")
    if looks_local and not any(path.glob("*.safetensors")):
        raise UsageError(f"workload.model: {model} holds no *.safetensors", "pickled weights are not opened")


def resolved(model: str) -> str:
    """A hub id as it is, a local folder without its tilde."""
    path = Path(model).expanduser()
    return str(path) if path.exists() else model


def modelling_modules(config: Mapping[str, Any] | None) -> tuple[str, ...]:
    """What transformers imports to build an inline configuration's architecture."""
    common = ("transformers.models.auto.modeling_auto",)
    if config is None:
        return common
    model_type = str(config["model_type"]).replace("-", "_")
    return *common, f"transformers.models.{model_type}.modeling_{model_type}"


def identity(model: str | None, config: Mapping[str, Any] | None, revision: str | None) -> Mapping[str, str]:
    """Name and content hash of a model; of a hub's model its id and revision."""
    content = json.dumps(config, sort_keys=True).encode() if config is not None else b""
    folder = Path(model or "").expanduser()
    if model is not None:
        content = _folder_digest(folder) if folder.is_dir() else f"{model}@{revision}".encode()
    name = model if model is not None else f"{(config or {})['model_type']} (random weights)"
    return {"model": Path(name).name, "model_hash": hashlib.sha256(content).hexdigest()[:16]}


def first_sentence(error: BaseException) -> str:
    """The first sentence of a library's long message."""
    return " ".join(str(error).split()).split(". ")[0][:200]


def _folder_digest(folder: Path) -> bytes:
    """Configuration in full; of weights the name, the size and the header, which lists every tensor's place."""
    digest = hashlib.sha256((folder / "config.json").read_bytes() if (folder / "config.json").is_file() else b"")
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(f"{path.name}:{path.stat().st_size}".encode() + file.read(HEAD_BYTES))
    return digest.digest()
