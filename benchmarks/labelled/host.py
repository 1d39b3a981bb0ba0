"""Many small operations: what the host must hand out one by one.

Every part works on `rows` rows in `amount` calls. Fewer and larger operations are `FUSED` times the rows in a
`FUSED`-th of the calls: the same arithmetic on the same number of elements.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from autotuner.types import Config, Metrics
from labelled.part import Part, swapped

FUSED = 16
WIDTH = 16

Call = Callable[[Any], object]


class Calls(Part):
    """`amount` calls of a function on few rows."""

    def __init__(self, device: str, amount: int, what: str = "adds", rows: int = 2) -> None:
        import torch

        super().__init__(device, amount)
        self._call = KINDS[what](device)
        self._few = torch.rand((rows, WIDTH), device=device)
        self._many = torch.rand((rows * FUSED, WIDTH), device=device)
        self.calls, self.x = amount, self._few

    def run(self, config: Config) -> Metrics:
        """Call."""
        import torch

        call, x = self._call, self.x
        with torch.no_grad():
            for _ in range(self.calls):
                call(x)
        return {}

    def relieve(self, resource: str) -> AbstractContextManager[float] | None:
        """Fewer, larger operations."""
        if resource != "host_launch":
            return None
        calls = max(1, round(self.amount / FUSED))
        return swapped(self, calls / self.amount, calls=calls, x=self._many)

    def demands(self) -> Mapping[str, float]:
        """A call is about five operations."""
        return {"operations": 5.0 * self.calls}


def _adds(device: str) -> Call:
    return lambda x: x.add_(1.0).mul_(0.5).sub_(0.25)


def _small_products(device: str) -> Call:
    import torch

    w = torch.eye(WIDTH, device=device)
    return lambda x: torch.mm(x, w).relu_()


def _narrow_layers(device: str) -> Call:
    import torch

    return torch.nn.Sequential(*[torch.nn.Linear(WIDTH, WIDTH, device=device) for _ in range(8)])


def _modules(device: str) -> Call:
    from torch import nn

    return nn.Sequential(
        nn.LayerNorm(WIDTH, device=device), nn.Linear(WIDTH, WIDTH, device=device), nn.GELU(), nn.Dropout(0.0),
        nn.LayerNorm(WIDTH, device=device), nn.Identity(), nn.Tanh(),
    ).eval()  # fmt: skip


def _recurrent_steps(device: str) -> Call:
    """A recurrent net, stepped by hand."""
    import torch

    w, u = (torch.rand((WIDTH, WIDTH), device=device) for _ in range(2))

    def steps(x: Any) -> None:
        state = torch.zeros_like(x)
        for _ in range(4):
            state = torch.tanh(torch.mm(x, w) + torch.mm(state, u))

    return steps


def _sampling(device: str) -> Call:
    """A token is drawn, brought to the host and looked up, as naive decoding loops do it."""
    import torch

    def sample(x: Any) -> None:
        drawn = torch.multinomial(torch.softmax(x, -1), 1)
        best = torch.topk(x, 4, -1).values
        if drawn[0].item() < 0 or best[0, 0].item() > 2:
            x.zero_()

    return sample


def _elements(device: str) -> Call:
    """Single elements of a tensor, indexed from Python."""

    def walk(x: Any) -> None:
        total = 0.0
        for column in range(8):
            total += x[0, column].item()
        x[0, 0] = total * 0.0

    return walk


def _python(device: str) -> Call:
    """Bookkeeping in Python around every small operation."""

    def keep_books(x: Any) -> None:
        table = {f"request-{number}": {"tokens": [number] * 4, "done": number % 3 == 0} for number in range(24)}
        waiting = sorted((name for name, request in table.items() if not request["done"]), key=lambda name: name[::-1])
        x.mul_(1.0 if waiting else 0.0)

    return keep_books


def _views(device: str) -> Call:
    """Slices, transposes and concatenations of small tensors."""
    import torch

    def cut(x: Any) -> None:
        left, right = x.chunk(2, -1)
        turned = torch.cat([right, left], -1).t().contiguous().t()
        torch.stack([turned, x]).permute(1, 0, 2).reshape(x.shape[0], -1)

    return cut


def _optimizer(device: str) -> Call:
    """An update parameter by parameter, as optimizers without `foreach` do it."""
    import torch

    gradient, mean = torch.rand(WIDTH, device=device), torch.zeros(WIDTH, device=device)

    def update(x: Any) -> None:
        mean.mul_(0.9).add_(gradient, alpha=0.1)
        denominator = mean.square().sqrt_().add_(1e-8)
        x.addcdiv_(mean, denominator, value=-1e-9)

    return update


KINDS: Mapping[str, Callable[[str], Call]] = {
    "adds": _adds,
    "small_products": _small_products,
    "narrow_layers": _narrow_layers,
    "modules": _modules,
    "recurrent_steps": _recurrent_steps,
    "sampling": _sampling,
    "elements": _elements,
    "python": _python,
    "views": _views,
    "optimizer": _optimizer,
}
