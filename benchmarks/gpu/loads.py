"""A load for a recording: `loads.py idle|copy|matmul|decode [--seconds 90] [--device cuda]`.

Prints "ready" once the load runs, and ends by itself. `decode` is a decoder step of `--study` (the 9B GLM-4 shape by
default) with random weights. On a CPU all are small, to rehearse.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Step = Callable[[], object]
DECODER = Path(__file__).parents[2] / "search_spaces" / "open_autoglm.yaml"


@contextmanager
def idle(options: argparse.Namespace) -> Iterator[Step]:
    yield lambda: time.sleep(0.1)


@contextmanager
def copy(options: argparse.Namespace) -> Iterator[Step]:
    import torch

    source = torch.ones(2**30 if options.device == "cuda" else 2**24, dtype=torch.uint8, device=options.device)
    target = torch.empty_like(source)
    yield lambda: target.copy_(source)


@contextmanager
def matmul(options: argparse.Namespace) -> Iterator[Step]:
    import torch

    side = 8192 if options.device == "cuda" else 256
    matrix = torch.randn(side, side, dtype=torch.bfloat16, device=options.device)
    yield lambda: matrix @ matrix


@contextmanager
def decode(options: argparse.Namespace) -> Iterator[Step]:
    from autotuner import api

    spec = api.read_spec(options.study, [f"workload.device={options.device}"])
    config = {name: parameter.default for name, parameter in spec.parameters.items()}
    if options.device == "cuda":
        config["batch_size"] = 32
    with spec.workload.open(config, options.device) as opened:
        yield lambda: opened.step(config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    loads = {load.__name__: load for load in (idle, copy, matmul, decode)}
    parser.add_argument("load", choices=loads)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--study", type=Path, default=DECODER)
    options = parser.parse_args()
    with loads[options.load](options) as step:
        step()
        settle(options)
        print("ready", flush=True)
        until_s = time.monotonic() + options.seconds
        while time.monotonic() < until_s:
            for _ in range(10):  # asynchronous, but not without end
                step()
            settle(options)


def settle(options: argparse.Namespace) -> None:
    if options.device == "cuda" and options.load != "idle":
        import torch

        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
