"""Secrets never leave: planted in every place that a study file has for them, and searched in every byte."""

import dataclasses
import secrets

import pytest
from recommended import INFERENCE, LLAMA_CPP, PLAIN, SERVE, SGLANG, SHARDED, TRAINING, VLLM

from autotuner.api import export_targets
from autotuner.errors import UsageError
from autotuner.exporters.bundle import make_bundle

SUBJECTS = [VLLM, SGLANG, LLAMA_CPP, SERVE, INFERENCE, TRAINING, SHARDED, PLAIN]
NAMES = [
    "HF_TOKEN",
    "VLLM_API_KEY",
    "OPENAI_API_KEY",
    "DB_PASSWORD",
    "SOME_CREDENTIALS",
    "ANYTHING_ELSE",
    "HOME",
    "USER",
]


@pytest.fixture
def planted(monkeypatch):
    """`{where: secret}`."""
    found = {
        name: secrets.token_hex(12) for name in (*NAMES, "--api-key", "--hf-token", "header", "inherit", "url", "mid")
    }
    for name in NAMES:
        monkeypatch.setenv(name, found[name] + "e")
    return found


def with_secrets(subject, planted):
    section = dict(subject.spec.get("workload", {}))
    section["env"] = {**section.get("env", {}), **{name: planted[name] for name in NAMES}}
    section["headers"] = {"Authorization": f"Bearer {planted['header']}", "X-Api-Key": planted["header"]}
    section["inherit"] = [planted["inherit"]]
    section["url"] = f"http://user:{planted['url']}@127.0.0.1:{{port}}"
    if "argv" in section:
        section["argv"] = [
            *section["argv"], "--api-key", planted["--api-key"], f"--hf-token={planted['--hf-token']}", "--header",
            f"Authorization: Bearer {planted['mid']}", f"https://me:{planted['mid']}@host/x",
        ]  # fmt: skip
    return dataclasses.replace(subject, spec={**subject.spec, "workload": section})


@pytest.mark.parametrize("target", sorted(set(export_targets()) - {"patch", "optuna"}))
def test_no_secret_leaves(target, planted):
    drawn = 0
    for subject in SUBJECTS:
        exporter = export_targets()[target].model_validate({"kind": target})
        try:
            bundle = make_bundle(exporter, with_secrets(subject, planted))
        except UsageError:
            continue  # a study of another kind
        drawn += 1
        leaks = {(place, name) for name, content in bundle.files.items()
                 for place, secret in planted.items() if secret.encode() in content}  # fmt: skip
        assert not leaks
    assert drawn
