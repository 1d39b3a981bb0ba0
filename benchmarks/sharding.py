"""What does sharding save, and what does it cost? Two ranks, the same training, three ways to share its states.

    python benchmarks/sharding.py [--rounds 3] [--json OUT]

Every configuration is a real trial of `transformers-training` in fresh processes over gloo; the rounds are interleaved
in random order. Memory is the peak resident set of a rank, the mean of the two. The model says: the states by ZeRO
(`analyze.memory_model.zero_bytes`), for FSDP2 when most of them are there (`fsdp_peak_bytes`), and what a process needs
besides, measured with a model of next to no parameters. Goal: within 10 % for each. The C library is told to give large
pieces back at once: by itself it keeps up to a third more than a process holds, which is not modelled.
"""

import argparse
import os
import random
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from results import describe_machine, publish
from training_cases.race import ratio

from autotuner.analyze.memory_model import fsdp_peak_bytes, zero_bytes
from autotuner.executors.process import ProcessExecutor
from autotuner.metrics import format_value
from autotuner.plugins import Job, WorkerPool
from autotuner.types import Config, Measurement, MeasurementProtocol
from autotuner.workloads.training.data import Data
from autotuner.workloads.transformers_training import TransformersTraining

GOAL_RATIO = 0.1
WIDTH, LAYERS, VOCABULARY, RANKS = 768, 8, 4096, 2
ARMS: dict[str, Config] = {"none (DDP)": {}, "zero2": {"sharding": "zero2"}, "zero3": {"sharding": "zero3"}}
PROTOCOL = MeasurementProtocol(
    block_s=0.5, warmup_min_steps=2, warmup_min_s=0, warmup_max_s=5, min_blocks=4, min_measure_s=4, max_measure_s=8,
    time_limit_s=300,
)  # fmt: skip


def workload(folder: Path, width: int) -> TransformersTraining:
    path = folder / "text.txt"
    path.write_text("the states of a training are its parameters, its gradients and what its optimizer keeps. " * 200)
    shape = {
        "model_type": "llama", "hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": LAYERS,
        "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": VOCABULARY, "tie_word_embeddings": False,
        "max_position_embeddings": 64,
    }  # fmt: skip
    return TransformersTraining(config=shape, data=Data(path=str(path), sequence_tokens=32), global_batch=4)


def elements(width: int) -> tuple[int, int]:
    """Of one layer (attention, gated feed-forward, two norms), and of what lies around the layers."""
    return 4 * width**2 + 9 * width**2 + 2 * width, 2 * VOCABULARY * width + width


def predicted_bytes(arm: str) -> float:
    """The states on one rank when most of them are there."""
    layer, rest = elements(WIDTH)
    if arm in ("zero2", "zero3"):
        return fsdp_peak_bytes(layer, LAYERS, rest, RANKS, freed=arm == "zero3")
    sizes = {"parameter_bytes": 4, "gradient_bytes": 4, "optimizer_bytes": 8}
    return zero_bytes(LAYERS * layer + rest, RANKS, 0, **sizes).total_bytes


def measure(pool: WorkerPool, what: TransformersTraining, config: Config) -> Measurement:
    done = pool.submit(Job(what, {"data_parallel": RANKS, "micro_batch": 2, **config}, PROTOCOL)).result()
    pool.close("search")
    if not isinstance(done, Measurement):
        raise SystemExit(f"{config}: {done.message}")
    return done


def rank_bytes(seen: Measurement) -> float:
    """On a CPU the metric is the sum over the ranks."""
    return seen.samples["peak_memory_bytes"][0] / RANKS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**18)  # read when the workers' server starts
    print(describe_machine())
    layer, rest = elements(WIDTH)
    print(f"{(LAYERS * layer + rest) / 1e6:.0f} million float32 parameters, AdamW, {RANKS} ranks over gloo")
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as folder:
        big, tiny = workload(Path(folder), WIDTH), workload(Path(folder), 8)
        with ProcessExecutor().open(big.preload()) as pool:
            base = {arm: rank_bytes(measure(pool, tiny, config)) for arm, config in ARMS.items()}
            order = random.Random(0)
            for number in range(options.rounds):
                for arm in order.sample(list(ARMS), len(ARMS)):
                    seen = measure(pool, big, ARMS[arm])
                    rate = median(seen.samples["throughput_samples_per_s"])
                    found[arm]["peak_memory_bytes"].append(rank_bytes(seen))
                    found[arm]["throughput_samples_per_s"].append(rate)
                    waited_s, step_s = (sum(seen.samples[name]) for name in ("communication_s", "latency_s"))
                    found[arm]["exposed_communication_ratio"].append(waited_s / step_s)
                    print(f"  round {number + 1}, {arm}: {rate:.2f} samples/s", flush=True)
    publish(options.json, {"base_bytes": base, "arms": found}, table(found, base))


def table(found: Any, base: dict[str, float]) -> dict[str, bool]:
    """Print it; the goals."""
    row = "{:12} {:>12} {:>12} {:>8} {:>10} {:>22} {:>10}"
    print("\n" + row.format("sharding", "peak memory", "by the model", "off", "samples/s", "to none", "exposed"))
    goals, plain = {}, found["none (DDP)"]["throughput_samples_per_s"]
    for arm, seen in found.items():
        peak_bytes, expected_bytes = median(seen["peak_memory_bytes"]), base[arm] + predicted_bytes(arm)
        off = peak_bytes / expected_bytes - 1
        middle, low, high = ratio(seen["throughput_samples_per_s"], plain)
        sizes = [format_value("peak_memory_bytes", size) for size in (peak_bytes, expected_bytes)]
        speed = f"{median(seen['throughput_samples_per_s']):.2f}"
        exposed = f"{median(seen['exposed_communication_ratio']):.0%}"
        print(row.format(arm, *sizes, f"{off:+.1%}", speed, f"{middle:.2f} [{low:.2f}, {high:.2f}]", exposed))
        goals[f"{arm}: memory of a rank {off:+.1%} off the model"] = abs(off) <= GOAL_RATIO
    return goals


if __name__ == "__main__":
    main()
