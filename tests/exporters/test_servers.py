"""What a study measured of a server's command line is what its target reads."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from recommended import LLAMA_CPP, PLAIN, SERVE, SGLANG, TRAINING, VLLM

from autotuner.errors import UsageError
from autotuner.exporters.command_line import command_line, options
from autotuner.exporters.llama_cpp import LlamaCppExporter
from autotuner.exporters.sglang import SglangExporter
from autotuner.exporters.transformers import TransformersExporter
from autotuner.exporters.vllm import VllmExporter, arguments

SERVERS = Path(__file__).parents[2] / "examples" / "servers"


def with_workload(recommendation, **changes):
    spec = {**recommendation.spec, "workload": {**recommendation.spec["workload"], **changes}}
    return dataclasses.replace(recommendation, spec=spec)


def test_vllm_reads_what_was_measured():
    drawn = VllmExporter().draft(VLLM.config, VLLM)
    document = yaml.safe_load(drawn.files["vllm.yaml"])
    assert document == {
        "model": "Qwen/Qwen3-8B", "max-num-seqs": 64, "max-num-batched-tokens": 8192, "block-size": 16,
        "gpu-memory-utilization": 0.94, "kv-cache-dtype": "fp8", "enforce-eager": True, "enable-prefix-caching": False,
    }  # fmt: skip
    assert drawn.left_out == {}
    words = arguments(drawn.files["vllm.yaml"])
    assert words[-2:] == ["--enforce-eager", "--no-enable-prefix-caching"]
    assert words[words.index("--gpu-memory-utilization") + 1] == "0.94"


def test_vllms_loader_drops_a_false_with_underscores():
    """The rule that we write hyphens for."""
    assert arguments(b"enable_prefix_caching: false\nenable-chunked-prefill: false\nx: []\n") == [
        "--no-enable-chunked-prefill"
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--compilation-config", '{"mode": 3, "custom_ops": ["none"]}'],
         {"compilation-config": {"mode": 3, "custom_ops": ["none"]}}),
        (["--cudagraph-capture-sizes", "1", "2", "4"], {"cudagraph-capture-sizes": [1, 2, 4]}),
        (["-tp=2", "--seed", "-1"], {"tensor-parallel-size": 2, "seed": -1}),
        (["--served-model-name", "007", "--revision", "1e-5"], {"served-model-name": "007", "revision": "1e-5"}),
        (["--dtype=half", "--no-async-scheduling"], {"dtype": "half", "async-scheduling": False}),
        (["--compilation-config.cudagraph_mode", "FULL", "-cc.mode=3", "--kv_cache_dtype=fp8"],
         {"compilation-config.cudagraph_mode": "FULL", "compilation-config.mode": 3, "kv-cache-dtype": "fp8"}),
        (["-O3"], {"optimization-level": 3}),
        (["-O", "2", "-sc", '{"a": 1}'], {"optimization-level": 2, "speculative-config": {"a": 1}}),
        (["--chat-template", "{{% for x %}", "--x", '{"a": NaN}'],
         {"chat-template": "{{% for x %}", "x": '{"a": NaN}'}),
    ],
)  # fmt: skip
def test_awkward_options_reach_vllm_unchanged(words, expected):
    subject = with_workload(VLLM, argv=["vllm", "serve", "m", "--port", "{port}", *words])
    drawn = VllmExporter().draft(VLLM.config, subject)
    assert yaml.safe_load(drawn.files["vllm.yaml"]) == {"model": "m", **expected}
    assert set(drawn.left_out) == set(VLLM.config), "nothing of this command line says a parameter"


@pytest.mark.parametrize("words", [["--enforce-eager", "Qwen/Q"], ["--port", "{port}", "Qwen/Q", "--enforce-eager"]])
def test_the_model_may_stand_behind_a_switch(words):
    subject = with_workload(VLLM, argv=["vllm", "serve", *words, "--port", "{port}"])
    document = yaml.safe_load(VllmExporter().draft(VLLM.config, subject).files["vllm.yaml"])
    assert document == {"model": "Qwen/Q", "enforce-eager": True}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dtype", "half", "m"], "which word is the model"),
        (["--api-key", "K", "m"], "which word is the model"),
        (["m", "--no-cc.use_x"], "cannot say"),
        (["m", "-xyz", "3"], "-xyz"),
    ],
)
def test_what_vllms_file_cannot_say_is_refused(words, said):
    subject = with_workload(VLLM, argv=["vllm", "serve", *words, "--port", "{port}"])
    with pytest.raises(UsageError, match=said):
        VllmExporter().draft(VLLM.config, subject)


def test_variables_of_the_study_go_beside_it():
    own = {"VLLM_ATTENTION_BACKEND": "FLASHINFER", "VLLM_API_KEY": "s3cret", "HOME": "/h", "RAYON_NUM_THREADS": "4",
           "CUDA_VISIBLE_DEVICES": "", "VLLM_CACHE_ROOT": "{folder}"}  # fmt: skip
    drawn = VllmExporter().draft(VLLM.config, with_workload(VLLM, env=own))
    assert drawn.files["vllm.env"] == b'VLLM_ATTENTION_BACKEND=FLASHINFER\nCUDA_VISIBLE_DEVICES=""\n'
    assert drawn.withheld.keys() == {"VLLM_API_KEY", "HOME", "RAYON_NUM_THREADS", "VLLM_CACHE_ROOT"}
    assert "known" in drawn.withheld["RAYON_NUM_THREADS"]


def test_a_parameter_whose_word_is_hidden_is_left_out():
    argv = ["vllm", "serve", "m", "--port", "{port}", "--tokens", "{max_num_seqs}", "--log", "{folder}/{block_size}",
            {"if": "enforce_eager", "args": ["--password=x"]},
            {"if": "not prefix_caching", "args": ["--fine"]}]  # fmt: skip
    subject = with_workload(VLLM, argv=argv, env={"HF_TOKEN": "{kv_cache_dtype}", "X": "{gpu_memory_utilization}"})
    drawn = VllmExporter().draft(VLLM.config, subject)
    assert drawn.left_out.keys() == VLLM.config.keys() - {"prefix_caching", "gpu_memory_utilization"}
    assert drawn.withheld.keys() == {"--tokens", "--log", "--password", "HF_TOKEN"}
    off = VllmExporter().draft({**VLLM.config, "enforce_eager": False}, subject)
    assert "enforce_eager" not in off.left_out, "that its word is not there says it"


def test_what_stands_before_the_program_is_named():
    argv = ["nice", "-{block_size}", "vllm", "serve", "m", "--port", "{port}"]
    drawn = VllmExporter().draft(VLLM.config, with_workload(VLLM, argv=argv))
    assert "nice -16" in drawn.withheld
    assert "block_size" in drawn.left_out


def test_sglang_reads_what_was_measured():
    drawn = SglangExporter().draft(SGLANG.config, SGLANG)
    assert yaml.safe_load(drawn.files["sglang.yaml"]) == {
        "model-path": "Qwen/Qwen3-8B", "max-running-requests": 64, "chunked-prefill-size": 8192, "page-size": 1,
        "mem-fraction-static": 0.9, "schedule-policy": "fcfs", "disable-radix-cache": True,
    }  # fmt: skip
    assert drawn.left_out == {}


def test_llama_cpp_is_started_with_what_was_measured(tmp_path):
    drawn = LlamaCppExporter().draft(LLAMA_CPP.config, LLAMA_CPP)
    script = tmp_path / "llama-server.sh"
    script.write_bytes(drawn.files["llama-server.sh"])
    said = subprocess.run(
        ["sh", script, "--port", "8080"], env={"LLAMA_SERVER": "/bin/echo"}, capture_output=True, text=True, check=True
    ).stdout
    assert said.split() == (
        "--model studies/tiny.gguf --threads 1 --threads-batch 2 --parallel 8 --batch-size 2048 --ubatch-size 64 "
        "--cache-type-k q8_0 --cache-type-v q8_0 --port 8080"
    ).replace("--threads-batch 2", f"--threads-batch {LLAMA_CPP.config['threads_batch']}").split()  # fmt: skip


def test_transformers_serve(tmp_path):
    drawn = TransformersExporter().draft(SERVE.config, SERVE)
    assert b"OMP_NUM_THREADS=1" in drawn.files["serve.sh"]
    assert b"--continuous-batching" in drawn.files["serve.sh"]
    assert b"127.0.0.1" not in drawn.files["serve.sh"]
    assert yaml.safe_load(drawn.files["continuous_batching.json"]) == {
        "page_size": 64, "num_blocks": 256, "max_batch_tokens": 256
    }  # fmt: skip
    assert drawn.left_out == {}
    plain = TransformersExporter().draft(SERVE.baseline, SERVE)
    assert "continuous_batching.json" not in plain.files


@pytest.mark.parametrize("exporter", [VllmExporter(), SglangExporter(), LlamaCppExporter()], ids=lambda e: e.kind)
@pytest.mark.parametrize("subject", [PLAIN, TRAINING, SERVE], ids=["plain", "training", "another server"])
def test_a_study_of_something_else_is_refused(exporter, subject):
    with pytest.raises(UsageError, match=f"{exporter.kind} cannot use the study"):
        exporter.draft(subject.config, subject)


def test_where_it_listened_and_its_secrets_stay_here():
    argv = ["vllm", "serve", "m", "--host", "127.0.0.1", "--port=8123", "--api-key", "sk-abcdefgh", "--max-num-seqs",
            "{max_num_seqs}", "--header", "Authorization: Bearer xyz", "--log", "{folder}/log", "--hf-token=hf_abc",
            "https://me:pass@host/x"]  # fmt: skip
    line = command_line(with_workload(VLLM, argv=argv), VLLM.config)
    assert line.words == ("vllm", "serve", "m", "--max-num-seqs", "64")


def test_a_secret_behind_a_port_stays_here_too():
    argv = ["vllm", "serve", "--port", "{port}", "hf_abcdefghijkl", "m", "--host", "h", "--eager"]
    line = command_line(with_workload(VLLM, argv=argv), VLLM.config)
    assert line.words == ("vllm", "serve", "m", "--eager")
    assert line.hidden == {"word 3": "it looks like a secret"}


def test_a_flag_takes_the_words_up_to_the_next():
    free, found = options(["serve", "m", "--a", "1", "2", "--b=x=y", "--c", "-3", "-d"])
    assert free == ("serve", "m")
    assert found == {"a": ("1", "2"), "b": ("x=y",), "c": ("-3",), "d": ()}


@pytest.mark.slow
def test_llama_cpps_own_server_starts_with_what_was_exported(tmp_path):
    """llama.cpp's server out of xllamacpp, which stands in for llama-server: the script names the program."""
    model = tmp_path / "tiny.gguf"
    subprocess.run([sys.executable, str(SERVERS / "tiny_model.py"), str(model)], check=True)
    argv = [str(model) if word == "studies/tiny.gguf" else word for word in LLAMA_CPP.spec["workload"]["argv"]]
    drawn = LlamaCppExporter().draft(LLAMA_CPP.config, with_workload(LLAMA_CPP, argv=argv))
    script = tmp_path / "llama-server.sh"
    script.write_bytes(drawn.files["llama-server.sh"])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    environment = {**os.environ, "LLAMA_SERVER": f"{sys.executable} {SERVERS / 'llama_cpp.py'}"}
    with subprocess.Popen(["sh", script, "--port", str(port)], env=environment, stderr=subprocess.DEVNULL) as server:
        try:
            body = json.dumps({"messages": [{"role": "user", "content": "a"}], "max_tokens": 4}).encode()
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/v1/chat/completions", body, {"Content-Type": "application/json"}
            )
            deadline_s, answer = time.monotonic() + 60, None
            while answer is None and time.monotonic() < deadline_s:
                try:
                    with urllib.request.urlopen(request, timeout=30) as response:
                        answer = json.load(response)
                except OSError:
                    time.sleep(0.1)
            assert answer["usage"]["completion_tokens"] > 0
        finally:
            server.kill()
