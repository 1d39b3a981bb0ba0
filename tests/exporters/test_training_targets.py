"""A tuned training in the words of transformers, accelerate, DeepSpeed and torchrun; each file read by its own code."""

import subprocess

import pytest
import yaml
from recommended import INFERENCE, PLAIN, SERVE, SHARDED, TRAINING, recommend

from autotuner.errors import UsageError
from autotuner.exporters.accelerate import AccelerateExporter
from autotuner.exporters.bundle import make_bundle
from autotuner.exporters.deepspeed import DeepspeedExporter
from autotuner.exporters.torchrun import TorchrunExporter
from autotuner.exporters.transformers import TransformersExporter
from autotuner.exporters.triton import TritonExporter
from autotuner.exporting import run_checks


def read(drawn, name):
    return yaml.safe_load(drawn.files[name])


def of_ones_own(config, **section):
    return recommend(config, config, {"workload": {"kind": "python", **section}, "device": "cuda"})


def test_training_arguments():
    drawn = TransformersExporter().draft(TRAINING.config, TRAINING)
    assert read(drawn, "training_args.json") == {
        "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "dataloader_num_workers": 2, "bf16": True,
        "optim": "adamw_torch_fused", "torch_compile": True, "torch_compile_mode": "default", "use_cpu": True,
    }  # fmt: skip
    assert read(drawn, "from_pretrained.json") == {"attn_implementation": "sdpa"}
    assert drawn.left_out.keys() == {"loss_chunk", "threads"}


def test_the_global_batch_stays_what_it_was():
    for micro in (1, 2, 4, 16):
        arguments = read(TransformersExporter().draft({**TRAINING.config, "micro_batch": micro}, TRAINING),
                         "training_args.json")  # fmt: skip
        assert arguments["per_device_train_batch_size"] * arguments["gradient_accumulation_steps"] == 16


def test_over_two_ranks_a_rank_accumulates_half():
    arguments = read(TransformersExporter().draft(SHARDED.config, SHARDED), "training_args.json")
    assert arguments["per_device_train_batch_size"] * arguments["gradient_accumulation_steps"] * 2 == 16
    assert arguments["ddp_bucket_cap_mb"] == 4


def test_a_script_of_ones_own_is_mapped_by_name():
    config = {"my_batch": 8, "dataloader_num_workers": 2, "colour": "red"}
    subject = recommend(config, {**config, "my_batch": 2}, {"workload": {"kind": "python"}, "device": "cuda"})
    exporter = TransformersExporter(names={"my_batch": "per_device_train_batch_size"})
    drawn = exporter.draft(config, subject)
    assert read(drawn, "training_args.json") == {"per_device_train_batch_size": 8, "dataloader_num_workers": 2}
    assert drawn.left_out.keys() == {"colour"}
    with pytest.raises(UsageError, match="no parameter of serve is a training argument"):
        TransformersExporter().draft({"colour": "red"}, subject)


def test_inference():
    drawn = TransformersExporter().draft(INFERENCE.config, INFERENCE)
    assert read(drawn, "from_pretrained.json") == {"dtype": "bfloat16", "attn_implementation": "sdpa"}
    assert read(drawn, "generation_config.json") == {"cache_implementation": "static"}
    assert read(drawn, "compile_config.json") == {"mode": "default"}
    assert read(drawn, "pipeline.json") == {"batch_size": 16}
    assert drawn.left_out.keys() == {"threads"}
    assert read(TransformersExporter().draft(INFERENCE.baseline, INFERENCE), "generation_config.json") == {
        "disable_compile": True
    }


def test_accelerate():
    document = read(AccelerateExporter().draft(SHARDED.config, SHARDED), "default_config.yaml")
    assert (document["distributed_type"], document["num_processes"]) == ("FSDP", 2)
    assert document["fsdp_config"]["fsdp_reshard_after_forward"] is True
    drawn = AccelerateExporter().draft(TRAINING.config, TRAINING)
    document = read(drawn, "default_config.yaml")
    assert (document["distributed_type"], document["mixed_precision"]) == ("NO", "bf16")
    assert document["dynamo_config"] == {"dynamo_backend": "INDUCTOR", "dynamo_mode": "default"}
    assert {"micro_batch", "workers", "threads"} <= drawn.left_out.keys()


def test_deepspeed():
    drawn = DeepspeedExporter().draft(SHARDED.config, SHARDED)
    assert read(drawn, "ds_config.json") == {
        "train_batch_size": 16, "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 2,
        "torch_autocast": {"enabled": False},
        "zero_optimization": {"stage": 3, "reduce_bucket_size": 2**20},
    }  # fmt: skip
    trainer = read(drawn, "ds_config_trainer.json")
    assert trainer["train_batch_size"] == trainer["bf16"]["enabled"] == "auto"
    assert trainer["zero_optimization"] == {"stage": 3, "reduce_bucket_size": 2**20}
    with pytest.raises(UsageError, match=r"nothing that .* tunes is DeepSpeed's"):
        DeepspeedExporter().draft({"colour": "red"}, PLAIN)


@pytest.mark.parametrize(
    ("spelling", "format_", "deepspeeds"),
    [("bf16", "bf16", "bfloat16"), ("torch.bfloat16", "bf16", "bfloat16"), ("half", "fp16", "float16"),
     ("FP16", "fp16", "float16"), ("fp32", "no", None), (False, "no", None)],
)  # fmt: skip
def test_a_precision_is_the_same_everywhere_however_it_is_spelled(spelling, format_, deepspeeds):
    subject = of_ones_own({"precision": spelling, "micro_batch": 4, "bucket_bytes": 2**22, "sharding": "zero2"})
    arguments = read(TransformersExporter().draft(subject.config, subject), "training_args.json")
    assert (arguments["bf16"], arguments.get("fp16", False)) == (format_ == "bf16", format_ == "fp16")
    accelerates = read(AccelerateExporter().draft(subject.config, subject), "default_config.yaml")
    assert accelerates["mixed_precision"] == format_
    found = read(DeepspeedExporter().draft(subject.config, subject), "ds_config.json")
    autocast = {"enabled": True, "dtype": deepspeeds} if deepspeeds else {"enabled": False}
    assert found["torch_autocast"] == autocast
    assert not {"bf16", "fp16"} & found.keys()  # they would cast the weights
    assert found["zero_optimization"]["reduce_bucket_size"] == 2**22 // (2 if deepspeeds else 4)


@pytest.mark.parametrize("exporter", [TransformersExporter(), AccelerateExporter(), DeepspeedExporter()])
def test_what_no_target_knows_is_named_and_not_guessed(exporter):
    subject = of_ones_own({"precision": "int3", "micro_batch": 4, "sharding": "zero9"})
    drawn = exporter.draft(subject.config, subject)
    assert "no such value there: no, none" in drawn.left_out["precision"]
    assert "sharding" in drawn.left_out
    assert not any(word in content for word in (b"bf16", b"precision", b"stage") for content in drawn.files.values())


def test_zero1_is_nothing_that_accelerates_fsdp_does():
    subject = of_ones_own({"sharding": "zero1", "data_parallel": 2})
    assert AccelerateExporter().draft(subject.config, subject).left_out.keys() == {"sharding"}


@pytest.mark.parametrize("degrees", [{"data_parallel": 2}, {"num_processes": 2}, {"nproc_per_node": 2},
                                     {"num_processes": 4, "tensor_parallel": 2}])  # fmt: skip
def test_every_target_shares_the_global_batch_out_to_the_ranks(degrees):
    subject = of_ones_own({"micro_batch": 4, **degrees}, global_batch=16)
    drawn = TransformersExporter().draft(subject.config, subject)
    assert read(drawn, "training_args.json")["gradient_accumulation_steps"] == 2
    assert drawn.left_out.keys() == degrees.keys()
    drawn = DeepspeedExporter().draft(subject.config, subject)
    assert read(drawn, "ds_config.json") | {"tensor_parallel": 0} == {
        "train_batch_size": 16, "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 2,
        "tensor_parallel": 0,
    }  # fmt: skip
    assert drawn.left_out.keys() == degrees.keys() - {"tensor_parallel"}


@pytest.mark.parametrize("exporter", [TransformersExporter(), DeepspeedExporter()])
@pytest.mark.parametrize(("micro", "made"), [(6, "2 micro batches of 6"), (32, "1 micro batches of 32")])
def test_a_global_batch_that_would_become_another_is_refused(exporter, micro, made):
    subject = of_ones_own({"micro_batch": micro, "global_batch": 16})
    with pytest.raises(UsageError, match=f"{made} samples on 1 ranks are no global batch of 16"):
        exporter.draft(subject.config, subject)


def test_what_says_nothing_alone_is_named():
    subject = of_ones_own({"global_batch": 16, "prefetch_factor": 4, "workers": 0, "optim": "sgd"})
    drawn = TransformersExporter().draft(subject.config, subject)
    assert drawn.left_out.keys() == {"global_batch", "prefetch_factor"}


def test_tritons_queue_waits_only_where_it_batches():
    subject = of_ones_own({"max_queue_delay_microseconds": 100})
    assert TritonExporter(backend="onnxruntime").draft(subject.config, subject).left_out.keys() == subject.config.keys()
    text = TritonExporter().draft(subject.config, subject).files["config.pbtxt"].decode()
    assert 'key: "max_queue_delay_microseconds" value { string_value: "100" }' in text


def test_torchrun(tmp_path):
    config = {**SHARDED.config, "threads": 1, "NCCL_ALGO": "Ring", "NCCL_BUFFSIZE": 2**22}
    drawn = TorchrunExporter().draft(config, SHARDED)
    (tmp_path / "torchrun").write_text('#!/bin/sh\necho "$OMP_NUM_THREADS $NCCL_ALGO $NCCL_BUFFSIZE $*"\n')
    (tmp_path / "torchrun").chmod(0o755)
    (tmp_path / "launch.sh").write_bytes(drawn.files["launch.sh"])
    said = subprocess.run(
        ["sh", tmp_path / "launch.sh", "train.py", "a b"], env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert said == "1 Ring 4194304 --standalone --nproc-per-node 2 train.py a b\n"
    assert {"micro_batch", "sharding"} <= drawn.left_out.keys()


def test_torchrun_sets_what_the_study_set():
    section = {"kind": "command", "argv": ["x"], "env": {"NCCL_PROTO": "{proto}", "FOO": "1", "NCCL_DEBUG": "WARN"}}
    subject = recommend({"proto": "LL", "lr": 1}, {"proto": "Simple", "lr": 1}, {"workload": section})
    drawn = TorchrunExporter().draft(subject.config, subject)
    assert b"export NCCL_PROTO=LL\nexport NCCL_DEBUG=WARN\n" in drawn.files["launch.sh"]
    assert (drawn.left_out.keys(), drawn.withheld.keys()) == ({"lr"}, {"FOO"})


def test_triton():
    drawn = TritonExporter(model_name='my "model"').draft(INFERENCE.config, INFERENCE)
    text = drawn.files["config.pbtxt"].decode()
    assert 'name: "my \\"model\\""' in text
    assert "max_batch_size: 16" in text
    assert 'key: "compile" value { string_value: "default" }' in text
    assert drawn.left_out == {}
    other = TritonExporter(backend="onnxruntime").draft(INFERENCE.config, INFERENCE)
    assert {"dtype", "compile", "threads"} <= other.left_out.keys()


HALF = of_ones_own({"precision": "half", "micro_batch": 4, "sharding": "zero2", "num_processes": 2}, global_batch=16)
CASES = [
    (TransformersExporter(), TRAINING), (TransformersExporter(), SHARDED), (TransformersExporter(), INFERENCE),
    (TransformersExporter(), SERVE), (AccelerateExporter(), TRAINING), (AccelerateExporter(), SHARDED),
    (DeepspeedExporter(), TRAINING), (DeepspeedExporter(), SHARDED), (DeepspeedExporter(), HALF),
    (TorchrunExporter(), SHARDED), (TritonExporter(), INFERENCE),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("exporter", "subject"), CASES, ids=lambda case: getattr(case, "kind", getattr(case, "study", ""))
)
def test_the_targets_own_code_reads_it(exporter, subject):
    found = [*run_checks(exporter, make_bundle(exporter, subject))]
    assert found
    assert [check for check in found if not check.passed] == []


BROKEN = [
    (TransformersExporter(), TRAINING, "training_args.json", b'"bf16"', b'"bf61"', "bf61"),
    (AccelerateExporter(), TRAINING, "default_config.yaml", b"num_machines", b"num_maschines", "num_maschines"),
    (DeepspeedExporter(), SHARDED, "ds_config.json", b'"reduce_bucket_size"', b'"reduce_buckets"', "reduce_buckets"),
    (DeepspeedExporter(), HALF, "ds_config.json", b'"float16"', b'"float61"', "float61"),
    (TorchrunExporter(), SHARDED, "launch.sh", b"--nproc-per-node", b"--nprocs", ""),
    (TritonExporter(), INFERENCE, "config.pbtxt", b"max_batch_size", b"max_batchsize", "max_batchsize"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("exporter", "subject", "file", "old", "new", "said"), BROKEN, ids=lambda c: getattr(c, "kind", "")
)
def test_the_targets_own_code_finds_a_mistake(exporter, subject, file, old, new, said):
    """A check that lets everything pass would be none."""
    bundle = make_bundle(exporter, subject)
    bundle.files[file] = bundle.files[file].replace(old, new)
    found = [*run_checks(exporter, bundle)]
    assert any(check.passed is False for check in found)
    assert any(said in check.text for check in found), found


def test_two_parameters_under_one_name_and_a_name_for_none():
    subject = recommend({"a": 1, "b": 2}, {"a": 2, "b": 2}, {"workload": {"kind": "python"}, "device": "cpu"})
    with pytest.raises(UsageError, match="a and b would both be optim"):
        TransformersExporter(names={"a": "optim", "b": "optim"}).draft(subject.config, subject)
    with pytest.raises(UsageError, match=r"names\.c: there is no such parameter"):
        TransformersExporter(names={"c": "optim"}).draft(subject.config, subject)
