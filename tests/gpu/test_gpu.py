"""What only real hardware can show: contexts, real out-of-memory, sticky errors, memory that comes back, NVML."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cuda_faults import CudaFaults

from autotuner import api
from autotuner.errors import MachineError
from autotuner.executors.devices import reserved_gpus
from autotuner.executors.process import ProcessExecutor
from autotuner.monitor import gpu
from autotuner.monitor.gpu import GpuProbe
from autotuner.monitor.host import HostProbe
from autotuner.monitor.torch import TorchProbe
from autotuner.plugins import Job, WorkerPool
from autotuner.types import Decision, Failure, FailureKind, Measurement, MeasurementProtocol
from autotuner.workloads.transformers_inference import TransformersInference

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]
PROTOCOL = MeasurementProtocol(
    block_s=0.02, warmup_min_s=0.1, warmup_max_s=2, min_measure_s=1.5, max_measure_s=2, time_limit_s=120
)
TINY = """{"model_type": "glm4", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 16,
"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512, "pad_token_id": 0}"""
STUDY = f"""
workload: {{kind: transformers-inference, device: cuda, prompt_tokens: 8, new_tokens: 8, probe_requests: 2,
  config: {TINY}}}
parameters:
  batch_size: {{powers_of_two: [1, 16], default: 1}}
  dtype: {{choices: [float32, bfloat16], default: float32}}
objectives: [{{maximize: throughput_tokens_per_s}}]
budget: {{trials: 5, minutes: 3}}
protocol: {{warmup_max_s: 2, min_measure_s: 0.3, max_measure_s: 1, time_limit_s: 60}}
"""
HOLD = "import torch, time; x = torch.ones(2**30, device='cuda'); torch.cuda.synchronize(); print('up', flush=True); {}"


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    with ProcessExecutor().open(CudaFaults().preload()) as opened:
        yield opened


def run(pool: WorkerPool, job: Job) -> Measurement | Failure:
    return pool.submit(job).result(timeout=300)


def faults_job(fault: str = "", time_limit_s: float = 120, hold_bytes: int = 0) -> Job:
    fields = {name: getattr(PROTOCOL, name) for name in PROTOCOL.__slots__} | {"time_limit_s": time_limit_s}
    probes = (GpuProbe(), TorchProbe(), HostProbe())
    workload = CudaFaults(hold_bytes=hold_bytes)
    return Job(workload, {"fault": fault}, MeasurementProtocol(**fields), probes=probes, device="cuda")


def pid_of(outcome: Measurement | Failure) -> int:
    assert isinstance(outcome, Measurement), outcome
    return int(outcome.samples["worker_pid"][0])


def open_devices() -> set[str]:
    """What this process has open of the driver; a CUDA context has nvidia-uvm."""
    with os.scandir("/proc/self/fd") as entries:
        links = [os.readlink(entry.path) for entry in entries if os.path.lexists(entry.path)]  # noqa: PTH115
    return {link for link in links if link.startswith("/dev/nvidia-uvm")}


def test_context_lives_in_the_worker_alone(pool: WorkerPool) -> None:
    assert pid_of(run(pool, faults_job())) != os.getpid()
    assert open_devices() == set()
    torch = sys.modules.get("torch")
    assert torch is None or not torch.cuda.is_initialized()


def test_real_out_of_memory_is_data_and_the_next_trial_works(pool: WorkerPool) -> None:
    outcome = run(pool, faults_job("out_of_memory"))
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.OUT_OF_MEMORY, outcome.message
    pid_of(run(pool, faults_job()))


def test_sticky_error_dies_with_its_worker(pool: WorkerPool) -> None:
    before = pid_of(run(pool, faults_job()))
    outcome = run(pool, faults_job("device_assert"))
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.CRASHED
    assert "CUDA" in outcome.message or "killed by" in outcome.message, outcome.message
    assert pid_of(run(pool, faults_job())) != before


def test_memory_is_back_after_a_kill(pool: WorkerPool, device: gpu.Gpu) -> None:
    hold_bytes = 4 * 2**30
    before, seen, stop = gpu.used_memory_bytes(device.uuid) or 0, [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.2):
            seen.append(gpu.used_memory_bytes(device.uuid) or 0)

    thread = threading.Thread(target=watch)
    thread.start()
    outcome = run(pool, faults_job("hang", time_limit_s=30, hold_bytes=hold_bytes))
    stop.set()
    thread.join()
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.TIMED_OUT
    assert max(seen) - before >= hold_bytes, "it must really have held it, or this test shows nothing"
    pid_of(run(pool, faults_job()))  # and `clean` sees that it is back


def test_busy_gpu_is_refused(device: gpu.Gpu) -> None:
    argv = [sys.executable, "-c", HOLD.format("time.sleep(300)")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "up\n"
            if gpu.processes(device.uuid) is None:
                pytest.skip("NVML cannot name processes in this container: busy and unknown look alike")
            with pytest.raises(MachineError, match=f"used by process .*{other.pid}"), reserved_gpus():
                pass
        finally:
            other.kill()


def test_gpu_of_another_study_is_refused(device: gpu.Gpu) -> None:
    with reserved_gpus() as (first,):
        assert first.uuid == device.uuid
        assert os.environ["CUDA_VISIBLE_DEVICES"] == device.uuid
        with pytest.raises(MachineError, match="another study"), reserved_gpus():
            pass
    with reserved_gpus():
        pass


def test_probes_see_power_clock_and_memory(pool: WorkerPool) -> None:
    outcome = run(pool, faults_job(hold_bytes=2**30))
    assert isinstance(outcome, Measurement), outcome
    seen = outcome.telemetry
    assert seen["power_w"] > 20
    assert seen["sm_clock_hz"] > 3e8
    assert seen["memory_used_bytes"] > 2**30
    assert 0 <= seen.get("throttle_power_cap_ratio", 0.0) <= 1
    assert seen["allocator_retries"] == 0
    assert outcome.samples["peak_memory_bytes"][0] > 2**30
    assert outcome.environment["gpu"]


def test_events_and_wall_clock_agree(pool: WorkerPool) -> None:
    outcome = run(pool, faults_job())
    assert isinstance(outcome, Measurement), outcome
    pairs = sorted(zip(outcome.samples["event_s"], outcome.samples["wall_s"], strict=True), key=lambda pair: pair[1])
    event_s, wall_s = pairs[len(pairs) // 2]
    assert 0.5 * wall_s < event_s <= 1.02 * wall_s


def test_live_parameter_keeps_the_model_on_the_gpu() -> None:
    import json

    workload = TransformersInference(config=json.loads(TINY), prompt_tokens=8, new_tokens=8, probe_requests=2)
    live = frozenset({"batch_size"})
    configs = [{"batch_size": 1}, {"batch_size": 8}, {"batch_size": 8, "dtype": "bfloat16"}]
    with ProcessExecutor().open(workload.preload()) as pool:
        found = [run(pool, Job(workload, config, PROTOCOL, device="cuda", live=live)) for config in configs]
    assert all(isinstance(outcome, Measurement) for outcome in found), found
    assert [outcome.reused for outcome in found if isinstance(outcome, Measurement)] == [False, True, False]


def test_workload_keeps_its_contract_on_cuda() -> None:
    """In a process of its own, for it makes a CUDA context."""
    program = f"""
import json
from autotuner.testing.workloads import check_workload
from autotuner.workloads.transformers_inference import TransformersInference
workload = TransformersInference(config=json.loads('''{TINY}'''), prompt_tokens=8, new_tokens=4, probe_requests=2)
check_workload(workload, [{{}}, {{"batch_size": 4}}, {{"dtype": "bfloat16"}}, {{"attention": "eager"}}], "cuda")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]


def test_study_end_to_end(tmp_path: Path, device: gpu.Gpu) -> None:
    (tmp_path / "tiny.yaml").write_text(STUDY)
    db = str(tmp_path / "autotune.db")
    summary = api.start(tmp_path / "tiny.yaml", db=db)
    assert summary.verification is not None
    assert summary.decision is Decision.BETTER, summary.reason  # sixteen requests a step instead of one
    assert summary.environment["gpu"] == device.name
    with api.load_study("tiny", db) as study:
        trials = study.trials()
    assert len(trials) == 5
    assert all(isinstance(trial.outcome, Measurement) for trial in trials), trials
