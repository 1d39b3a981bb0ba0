"""Kubernetes and KServe: Kustomize builds it, the API's own schemas take it, and YAML 1.1 reads what was meant."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from shutil import which

import jsonschema
import pytest
import yaml
from recommended import INFERENCE, PLAIN, SGLANG, VLLM, recommend

from autotuner.exporters.bundle import make_bundle, write_bundle
from autotuner.exporters.documents import as_yaml
from autotuner.exporters.kserve import KserveExporter
from autotuner.exporters.kubernetes import KubernetesExporter

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: serve}
spec:
  selector: {matchLabels: {app: serve}}
  template:
    metadata: {labels: {app: serve}}
    spec:
      containers:
        - {name: serve, image: "vllm/vllm-openai:v0.33.0", args: [--model, old], env: [{name: KEPT, value: "1"}]}
        - {name: sidecar, image: "busybox:1"}
"""
AWKWARD = {"switch": True, "yes": "y", "no": "NO", "number": "1e-5", "octal": "012", "time": "12:30:45", "real": 1e-5}


def built(folder, exporter, subject):
    write_bundle(make_bundle(exporter, subject), folder / "autotune")
    (folder / "deployment.yaml").write_text(DEPLOYMENT)
    (folder / "kustomization.yaml").write_text("resources: [deployment.yaml]\ncomponents: [autotune]\n")
    return kustomize(folder)


def kustomize(folder):
    kubectl = which("kubectl") or str(next(__import__("pathlib").Path(sys.prefix, "bin").glob("kubectl*")))
    text = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=True).stdout
    found = {document["kind"]: document for document in yaml.safe_load_all(text)}
    return found["Deployment"], found["ConfigMap"]


def validate(document):
    import kubernetes_validate

    claimed = re.search(r"Kubernetes (\d+\.\d+)", KubernetesExporter.target_version)[1]
    assert kubernetes_validate.validate(document, claimed, strict=True).startswith(claimed)


def test_kustomize_gives_the_container_a_map_whose_name_is_its_content(tmp_path):
    deployment, config = built(tmp_path, KubernetesExporter(deployment="serve"), PLAIN)
    assert config["data"] == {
        "AUTOTUNE_BATCH_SIZE": "32", "AUTOTUNE_DTYPE": "bfloat16", "AUTOTUNE_COMPILE": "true",
        "AUTOTUNE_ATTN_KERNEL": "flash attention",
    }  # fmt: skip
    ours, sidecar = deployment["spec"]["template"]["spec"]["containers"]
    assert ours["envFrom"] == [{"configMapRef": {"name": config["metadata"]["name"]}}]
    assert config["metadata"]["name"].startswith("serve-autotune-")
    assert (ours["args"], ours["env"]) == (["--model", "old"], [{"name": "KEPT", "value": "1"}])
    assert "envFrom" not in sidecar
    validate(deployment)
    validate(config)
    (tmp_path / "kustomization.yaml").write_text("resources: [deployment.yaml]\ncomponents: [autotune/rollback]\n")
    _, old = kustomize(tmp_path)
    assert old["data"]["AUTOTUNE_BATCH_SIZE"] == "8"
    assert old["metadata"]["name"] != config["metadata"]["name"]


def test_a_servers_command_line_replaces_the_containers_when_its_port_is_said(tmp_path):
    deployment, _ = built(tmp_path, KubernetesExporter(deployment="serve", port=8000), VLLM)
    ours = deployment["spec"]["template"]["spec"]["containers"][0]
    assert ours["command"] == ["vllm", "serve", "Qwen/Qwen3-8B"]
    assert ours["args"][:2] == ["--max-num-seqs", "64"]
    assert ours["args"][-4:] == ["--host", "0.0.0.0", "--port", "8000"]
    validate(deployment)


def test_without_a_port_the_command_lines_parameters_are_left_out_by_name():
    drawn = KubernetesExporter().draft(VLLM.config, VLLM)
    assert drawn.left_out.keys() == VLLM.config.keys()
    assert "--set port=8000" in drawn.left_out["max_num_seqs"]
    assert KubernetesExporter(port=8000).draft(VLLM.config, VLLM).left_out == {}


def test_every_value_of_an_environment_is_text_to_kubernetes(tmp_path):
    subject = recommend(AWKWARD, {**AWKWARD, "switch": False}, {})
    _, config = built(tmp_path, KubernetesExporter(deployment="serve"), subject)
    assert list(config["data"].values()) == sorted_by_key(
        {
            "SWITCH": "true",
            "YES": "y",
            "NO": "NO",
            "NUMBER": "1e-5",
            "OCTAL": "012",
            "TIME": "12:30:45",
            "REAL": "1e-05",
        },
        config["data"],
    )
    values = yaml.safe_load(KubernetesExporter().draft(AWKWARD, subject).files["values.yaml"])
    assert all(isinstance(variable["value"], str) for variable in values["env"])


def sorted_by_key(expected, like):
    return [expected[name.removeprefix("AUTOTUNE_")] for name in like]


@pytest.mark.parametrize(
    "value", ["y", "NO", "off", "1e-5", "012", "12:30:45", "0x1f", "null", "~", "", "a: b", "1_000"]
)
def test_text_stays_text_in_yaml(value):
    assert yaml.safe_load(as_yaml({"value": value})) == {"value": value}
    assert not as_yaml({"value": value}).decode().strip().endswith(f": {value}") or value == "a: b"


@pytest.mark.parametrize("value", [1e-5, 1e300, 0.1, 1.0, 123456789.5])
def test_numbers_stay_numbers_in_yaml_1_1(value):
    assert yaml.safe_load(as_yaml({"value": value})) == {"value": value}


def kserve(subject):
    patch = KserveExporter(service="qwen").draft(subject.config, subject).files["inferenceservice-patch.yaml"]
    return yaml.safe_load(patch)["spec"]["predictor"]["model"]


def test_kserve():
    model = kserve(VLLM)
    schema = json.loads(Path(__file__).with_name("data").joinpath("kserve_predictor_model.json").read_text())
    jsonschema.validate(model, schema)
    wrongs = [{"arguments": []}, {"args": [64]}, {"env": [{"key": "A"}]}, {"env": [{"name": "A", "value": 1}]}]
    for wrong in wrongs:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**model, **wrong}, schema)
    assert model["command"] == ["vllm", "serve", "Qwen/Qwen3-8B"]
    assert model["args"][:2] == ["--max-num-seqs", "64"]
    assert model["args"][-4:] == ["--host", "0.0.0.0", "--port", "8080"]
    assert {"name": "AUTOTUNE_MAX_NUM_SEQS", "value": "64"} in model["env"]
    drawn = KserveExporter(service="qwen").draft(VLLM.config, VLLM)
    assert "kubectl patch inferenceservice qwen --type merge" in drawn.use
    assert drawn.left_out == {}
    assert kserve(INFERENCE).keys() == {"env"}


def test_kserve_of_a_python_module():
    model = kserve(SGLANG)
    assert model["command"] == ["python", "-m", "sglang.launch_server"]
    assert model["args"][:2] == ["--model-path", "Qwen/Qwen3-8B"]


def test_kserve_and_kubernetes_name_a_study_alike():
    subject = dataclasses.replace(PLAIN, study="Qwen3_CPU.v2")
    assert "inferenceservice qwen3-cpu-v2 " in KserveExporter().draft(PLAIN.config, subject).use
    patch = KubernetesExporter().draft(PLAIN.config, subject).files["deployment-patch.yaml"]
    assert yaml.safe_load(patch)["metadata"]["name"] == "qwen3-cpu-v2"
