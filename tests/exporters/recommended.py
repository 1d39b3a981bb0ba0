"""Recommendations of the kinds of work there are, as a study's record gives them."""

import dataclasses
from pathlib import Path

from autotuner.spec import load
from autotuner.types import Contribution, Decision, Equivalence, Pair, Recommendation, Tier, Verification

SPACES = Path(__file__).parents[2] / "search_spaces"
ENVIRONMENT = {"gpu": "NVIDIA H200", "torch": "2.13.0"}


def recommend(config, baseline, spec, decision=Decision.BETTER, name="serve"):
    proof = Verification(
        decision, "1.31 times the throughput.", config, baseline, "throughput_tokens_per_s", 1.31, (1.25, 1.38),
        pairs=(Pair(0, 131.0, 100.0), Pair(1, 132.0, 101.0)), noise_floor_ratio=0.01,
        equivalence=Equivalence(True, Tier.ROUNDING, "KL 1e-6 nats", {"output_kl_nats": 1e-6}),
        metrics={"throughput_tokens_per_s": 131.0}, baseline_metrics={"throughput_tokens_per_s": 100.0},
        contributions=(Contribution("batch_size", 1.3, (0.0, float("inf")), 3),),
    )  # fmt: skip
    return Recommendation(name, config, baseline, proof, ENVIRONMENT, spec)


def of_file(file, changes, *settings):
    """The recommendation of a shipped study file: its defaults with `changes`."""
    spec = load(SPACES / file, settings)
    assert changes.keys() <= spec.parameters.keys()
    return recommend({**spec.baseline, **changes}, dict(spec.baseline), spec.dump(), name=Path(file).stem)


def decided(recommendation, decision):
    proof = dataclasses.replace(recommendation.verification, decision=decision, reason="no difference above 3 %.")
    return dataclasses.replace(recommendation, verification=proof)


VLLM = of_file("vllm.yaml", {"max_num_seqs": 64, "gpu_memory_utilization": 0.94, "prefix_caching": False,
                             "kv_cache_dtype": "fp8", "enforce_eager": True})  # fmt: skip
SGLANG = of_file("sglang.yaml", {"max_running_requests": 64, "prefix_caching": False, "mem_fraction_static": 0.9})
LLAMA_CPP = of_file("llama_cpp.yaml", {"threads": 1, "parallel": 8, "cache_type": "q8_0", "ubatch": 64})
SERVE = of_file("transformers_serve.yaml", {"continuous_batching": True, "block_size": 64, "threads": 1})
INFERENCE = of_file("inference.yaml", {"batch_size": 16, "dtype": "bfloat16", "compile": "default",
                                       "kv_cache": "static", "threads": 1})  # fmt: skip
TRAINING = of_file("training.yaml", {"micro_batch": 8, "workers": 2, "autocast": "bfloat16", "compile": "default",
                                     "optimizer_kernel": "fused", "loss_chunk": 256, "threads": 1})  # fmt: skip
SHARDED = of_file(
    "training.yaml", {"micro_batch": 4, "data_parallel": 2, "sharding": "zero3", "bucket_bytes": 2**22},
    "parameters.data_parallel={choices: [1, 2], default: 1}",
    "parameters.sharding={choices: [none, zero2, zero3], default: none}",
    "parameters.bucket_bytes={choices: [4194304, 26214400], default: 26214400}",
)  # fmt: skip
PLAIN = recommend(
    {"batch_size": 32, "dtype": "bfloat16", "compile": True, "attn.kernel": "flash attention", "cache": None},
    {"batch_size": 8, "dtype": "bfloat16", "compile": False, "attn.kernel": "flash attention", "cache": None}, {},
)  # fmt: skip
