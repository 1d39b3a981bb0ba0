"""accelerate's `find_executable_batch_size`: the whole training, here an epoch of it, runs inside, as documented.

It starts at the largest batch and takes nine tenths after each failure. It stops at the first that fits and measures no
speed; everything else stays the baseline's.
"""

import math

from accelerate.utils import find_executable_batch_size

from training_cases.case import Case, train
from training_cases.peers.answer import Found, answer


def tune(case: Case) -> Found:
    tried: list[int] = []

    @find_executable_batch_size(starting_batch_size=max(case.batch_sizes))
    def training(batch_size: int) -> int:
        tried.append(batch_size)
        steps = train(case, {**case.baseline, "batch_size": batch_size})
        for _ in range(math.ceil(len(case.dataset()) / batch_size)):  # type: ignore[arg-type]
            next(steps)
        return batch_size

    return Found({"batch_size": training()}, len(tried), raw={"tried": tried})


if __name__ == "__main__":
    answer("accelerate", tune)
