"""Answers of a server against the baseline's, by the likeliest tokens that it tells of.

A server cannot be made to follow the baseline's tokens. So each pair of answers is read together for as long as both
chose the same: until then both saw the same text before them. Where they part, each one's choice must be among the
other's likeliest, as vLLM's own tests ask (`check_logprobs_close`); what follows says nothing any more.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

NOTHING_SAID: Mapping[str, float] = {  # where the baseline told how sure it is, and this one does not
    "output_identical": 0.0, "top1_agreement_ratio": 0.0, "top5_agreement_ratio": 0.0,
}  # fmt: skip
NEAR_TIE_NATS = 0.1  # batch sizes alone move log probabilities by up to 0.067 in vLLM's tests of batch invariance


def compare(reference: Mapping[str, Any], outputs: Mapping[str, Any]) -> dict[str, float]:
    """Agreement of two sets of answers to the same prompts.

    Args:
        reference: The baseline's `_prompt` and `_picked` [positions], `_top_tokens` and `_top_logprobs` [positions, k]:
            which prompt is answered, the token that was chosen, and the likeliest ones with their ln p.
        outputs: The candidate's.

    Returns:
        `top1_agreement_ratio`: of the positions where the baseline's first is clear of its second by more than
        `NEAR_TIE_NATS`, the share that chose it too. `top5_agreement_ratio`: the share of all positions where each
        one's choice is among the other's likeliest. `output_identical`: all tokens and probabilities are the same.
    """
    clear, same, within, count = 0, 0, 0, 0
    for place, other in _together(reference, outputs):
        picked, chosen = str(reference["_picked"][place]), str(outputs["_picked"][other])
        first, second = sorted(map(float, reference["_top_logprobs"][place]), reverse=True)[:2]
        count += 1
        if first - second > NEAR_TIE_NATS:
            clear += 1
            same += picked == chosen
        within += picked in _tops(outputs, other) and chosen in _tops(reference, place)
    return {
        "output_identical": float(_identical(reference, outputs)),
        "top1_agreement_ratio": same / clear if clear else 1.0,
        "top5_agreement_ratio": within / count if count else 0.0,
    }


def _together(reference: Mapping[str, Any], outputs: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    """Positions of both, up to and with the first where they part, prompt by prompt."""
    for prompt in sorted(set(map(int, reference["_prompt"]))):
        ours = [place for place, number in enumerate(reference["_prompt"]) if number == prompt]
        theirs = [place for place, number in enumerate(outputs["_prompt"]) if number == prompt]
        for place, other in zip(ours, theirs, strict=False):
            yield place, other
            if str(reference["_picked"][place]) != str(outputs["_picked"][other]):
                break


def _tops(arrays: Mapping[str, Any], place: int) -> set[str]:
    rows = zip(arrays["_top_tokens"][place], arrays["_top_logprobs"][place], strict=True)
    return {str(token) for token, logprob in rows if logprob > -math.inf}


def _identical(reference: Mapping[str, Any], outputs: Mapping[str, Any]) -> bool:
    import numpy as np

    return all(name in outputs and np.array_equal(reference[name], outputs[name]) for name in reference)
