"""llama.cpp's own server, with a tiny model made here: started, measured, compared, stopped."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from autotuner.api import read_spec
from autotuner.load.traffic import Traffic
from autotuner.monitor import answers
from autotuner.workloads.server import Server

pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")

SERVERS = Path(__file__).parents[2] / "examples" / "servers"
LOAD = Traffic(requests=8, concurrency=2, prompt_words=8, output_tokens=6)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "tiny.gguf"
    subprocess.run([sys.executable, str(SERVERS / "tiny_model.py"), str(file)], check=True)
    return file


def llama(model, **options):
    argv = (
        "{python}", str(SERVERS / "llama_cpp.py"), str(model), "--port", "{port}", "--threads", "1",
        "--parallel", "{parallel}", "--cache-type", "{cache_type}",
    )  # fmt: skip
    return Server(**{"argv": argv, "load": LOAD, "ready_s": 60, **options})


def test_llama_cpp_is_measured_and_tells_how_sure_it_is(model):
    workload, outputs = llama(model), {}
    for parallel, cache_type in ((1, "f16"), (2, "f16"), (2, "q8_0")):
        config = {"parallel": parallel, "cache_type": cache_type}
        with workload.open(config, "cpu") as opened:
            assert opened.dialect.wishes.keys() >= {"ignore_eos", "stream_options"}
            opened.warm_up(config)
            step = opened.step(config)
            outputs[parallel, cache_type] = opened.outputs(config, None)
        assert step.work == {"requests": 8, "tokens": 48}  # counted by the server, and none ended early
        assert len(step.samples["ttft_s"]) == 8
        assert step.metrics["error_ratio"] == 0
    same = answers.compare(outputs[1, "f16"], outputs[2, "f16"])
    assert same["top1_agreement_ratio"] >= 0.95
    assert len(outputs[1, "f16"]["_picked"]) == 8 * 16
    coarser = answers.compare(outputs[1, "f16"], outputs[2, "q8_0"])
    assert coarser["output_identical"] == 0


def test_completions_of_llama_cpp(model):
    config = {"parallel": 2, "cache_type": "f16"}
    with llama(model, api="completions").open(config, "cpu") as opened:
        assert opened.step(config).work["tokens"] == 48
        assert opened.outputs(config, None)["_top_tokens"].shape == (128, 5)


@pytest.mark.slow
@pytest.mark.parametrize("continuous_batching", [False, True])
def test_transformers_serve_as_its_search_space_starts_it(continuous_batching, tmp_path):
    pytest.importorskip("fastapi")
    model = tmp_path / "tiny"
    subprocess.run([sys.executable, str(SERVERS / "tiny_model.py"), str(model)], check=True)
    text = (SERVERS.parents[1] / "search_spaces" / "transformers_serve.yaml").read_text()
    (tmp_path / "serve.yaml").write_text(text.replace("studies/tiny\n", f"{model}\n"))
    spec = read_spec(tmp_path / "serve.yaml")
    workload = spec.workload.model_copy(update={"load": LOAD})
    config = {**spec.baseline, "continuous_batching": continuous_batching, "threads": 1}
    with workload.open(config, "cpu") as opened:
        opened.warm_up(config)
        step = opened.step(config)
        pids = opened.processes()
    assert step.work["requests"] == 8
    assert step.work["tokens"] > 0
    assert step.metrics["error_ratio"] == 0
    assert not any(map(psutil.pid_exists, pids))
