"""Secrets never leave: planted in every place that a study file has for them, and searched in every byte."""

import dataclasses
import secrets

import pytest
from recommended import INFERENCE, LLAMA_CPP, PLAIN, SERVE, SGLANG, SHARDED, TRAINING, VLLM

from autotuner.api import export_targets
from autotuner.errors import UsageError
from autotuner.exporters.bundle import make_bundle
from autotuner.exporters.kubernetes import KubernetesExporter
from autotuner.exporters.secrecy import is_secret

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
    "ADMIN_PASSWORD",
    "VLLM_ADMIN_TOKEN",
    "NEW_API_KEY",
    "NCCL_AUTH_TOKENS",
]
FLAGS = ["--admin-api-key", "--new-api-key", "--max-secret", "--ssl-keyfile-password", "--accessToken"]
SHAPES = {  # what stands in a value, whatever its option or variable is called
    "openai": "sk-proj-{}", "anthropic": "sk-ant-api03-{}", "aws": "AKIA{}", "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJ{}.s",
    "github": "github_pat_11{}", "redis": "redis://:{}@h/0", "clone": "https://ghp_{}@github.com/x/y",
    "java": "-Xmx4g -Djavax.net.ssl.keyStorePassword={}", "header": "X-Api-Key: {}", "json": '{{{{"api_key": "{}"}}}}',
    "query": "https://h/x?sv=1&sig={}", "slack": "xoxb-1-{}", "gitlab": "glpat-{}",
}  # fmt: skip


@pytest.fixture
def planted(monkeypatch):
    """`{where: secret}`."""
    found = {
        name: secrets.token_hex(12).upper()
        for name in (
            *NAMES, *FLAGS, *SHAPES, "--api-key", "second", "third", "--hf-token", "headers", "inherit", "url", "mid"
        )
    }  # fmt: skip
    for name in NAMES:
        monkeypatch.setenv(name, found[name] + "e")
    return found


def with_secrets(subject, planted):
    section = dict(subject.spec.get("workload", {}))
    section["env"] = {**section.get("env", {}), **{name: planted[name] for name in NAMES}}
    shaped = {name: shape.format(planted[name]) for name, shape in SHAPES.items()}
    section["env"] |= {f"VLLM_{name}": text for name, text in shaped.items()} | {"JAVA_TOOL_OPTIONS": shaped["java"]}
    section["headers"] = {"Authorization": f"Bearer {planted['headers']}", "X-Api-Key": planted["headers"]}
    section["inherit"] = [planted["inherit"]]
    section["url"] = f"http://user:{planted['url']}@127.0.0.1:{{port}}"
    if "argv" in section:
        section["argv"] = [
            *section["argv"], "--api-key", planted["--api-key"], planted["second"], planted["third"],
            f"--hf-token={planted['--hf-token']}", "--header",
            f"Authorization: Bearer {planted['mid']}", f"https://me:{planted['mid']}@host/x",
            *(word for name in FLAGS for word in (name, planted[name])),
            *(word for name, text in shaped.items() for word in (f"--{name}", text)),
            *(f"--{name}={text}" for name, text in shaped.items()), "--several", "plain", shaped["aws"],
        ]  # fmt: skip
    return dataclasses.replace(subject, spec={**subject.spec, "workload": section})


@pytest.mark.parametrize("target", sorted(set(export_targets()) - {"patch", "optuna"}))
def test_no_secret_leaves(target, planted):
    drawn = 0
    for subject in SUBJECTS:
        options = {"port": 8000} if target == "kubernetes" else {}
        exporter = export_targets()[target].model_validate({"kind": target, **options})
        try:
            bundle = make_bundle(exporter, with_secrets(subject, planted))
        except UsageError:
            continue  # a study of another kind
        drawn += 1
        leaks = {(place, name) for name, content in bundle.files.items()
                 for place, secret in planted.items() if secret.encode() in content}  # fmt: skip
        assert not leaks
    assert drawn


def test_what_is_withheld_is_named_without_its_value(planted):
    drawn = KubernetesExporter(port=8000).draft(VLLM.config, with_secrets(VLLM, planted))
    assert {
        "--api-key",
        "--admin-api-key",
        "--java",
        "--several",
        "HF_TOKEN",
        "JAVA_TOOL_OPTIONS",
    } <= drawn.withheld.keys()
    assert drawn.left_out == {}
    readme = make_bundle(KubernetesExporter(port=8000), with_secrets(VLLM, planted)).files["README.md"].decode()
    assert "- --admin-api-key: it looks like a secret" in readme
    assert "- HF_TOKEN: it looks like a secret" in readme


@pytest.mark.parametrize(
    "name",
    ["api-key", "admin-api-key", "new-api-key", "ADMIN_PASSWORD", "HF_TOKEN", "VLLM_ADMIN_TOKEN", "hf-token-file",
     "AWS_SECRET_ACCESS_KEY", "MASTER_KEY", "password", "auth", "db.passwd", "max-secret-tokens", "keyStorePassword"],
)  # fmt: skip
def test_names_of_secrets(name):
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    ["max-num-batched-tokens", "tokenizer", "num-speculative-tokens", "TOKENIZERS_PARALLELISM", "max_tokens",
     "max-total-tokens", "speculative-num-draft-tokens", "cb-max-batch-tokens", "maxNewTokens", "output_tokens",
     "long-prefill-token-threshold", "compilation-config.pass_config.enable_fusion", "kv-cache-dtype"],
)  # fmt: skip
def test_names_that_only_look_like_secrets(name):
    assert not is_secret(name)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_values_of_secrets(shape):
    assert is_secret("model", shape.format("A1B2C3D4E5F6"))


@pytest.mark.parametrize(
    "value", ["Qwen/Qwen3-8B", '{"method": "eagle", "num_speculative_tokens": 3}', "http://h:8000/v1", "task-abcdefgh",
              "sk", "HF_HUB_OFFLINE", "expandable_segments:True", '{"eos_token_id": 2}'],
)  # fmt: skip
def test_values_that_are_none(value):
    assert not is_secret("model", value)
