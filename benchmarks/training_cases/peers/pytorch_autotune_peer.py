"""pytorch-autotune: precision, `torch.compile` mode and memory format on one example batch of the baseline's size.

Its budget is given in seconds, as documented; CUDA graphs are left out where shapes vary, as it asks. It sees neither
the loader nor the batch size, and on a CPU it does not try bfloat16.
"""

from pytorch_autotune import autotune

from training_cases.case import Case
from training_cases.peers.answer import Found, answer

BUDGET_S = 180
PRECISIONS = {"fp32_default": "float32", "tf32": "float32", "amp_bf16": "bfloat16", "amp_fp16": "float16"}


def tune(case: Case) -> Found:
    case.prepare()
    batch = next(iter(case.loader(case.baseline)))
    result = autotune(
        case.model(), (batch[0], batch[1]), optimizer="adamw", budget=BUDGET_S, device="cpu", cache=False,
        allow_cudagraphs=not case.shapes_vary, verbose=False,
    )  # fmt: skip
    report, chosen = result.report, result.config
    changed = {
        "precision": PRECISIONS[chosen.precision],
        "compile": "none" if chosen.compile == "off" else chosen.compile,
        "channels_last": chosen.channels_last,
    }
    ran = [trial for trial in report.trials if trial.status != "skipped"]
    return Found(changed, len(ran), len(batch[1]) / report.winner.ms_per_step * 1e3, report.to_dict())


if __name__ == "__main__":
    answer("pytorch-autotune", tune)
