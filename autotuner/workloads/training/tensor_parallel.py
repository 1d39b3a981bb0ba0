"""Tensor parallelism by the plan that transformers writes into a model's configuration."""

from typing import Any

from autotuner.errors import UnsupportedError

_HEAD_NORMS = ("q_norm", "k_norm", "v_norm")


def transformer(model: Any) -> Any:
    """The first transformers model in a module, or None."""
    return next((module for module in model.modules() if hasattr(module, "base_model_prefix")), None)


def apply(model: Any, mesh: Any) -> None:
    """Spread the layers of the transformers model in a module over a mesh of one dimension, in place.

    Raises:
        UnsupportedError: No plan, or a style in it that is not known here.
    """
    from torch.distributed.tensor.parallel import parallelize_module

    inner = transformer(model)
    plan = getattr(inner.config.get_text_config(), "base_model_tp_plan", None) if inner is not None else None
    if not plan:
        raise UnsupportedError(f"{type(inner or model).__name__} has no plan for tensor parallelism")
    parallelize_module(inner.base_model, mesh, {name: _style(name, style) for name, style in plan.items()})


def _style(name: str, style: str) -> Any:
    """The style of torch's that does what transformers means by the name."""
    from torch.distributed.tensor import Replicate
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, SequenceParallel

    match style:
        case "colwise":
            return ColwiseParallel()
        case "rowwise":
            return RowwiseParallel()
        case "colwise_gather_output":  # what follows cuts the output in a way of its own
            return ColwiseParallel(output_layouts=Replicate())
        case "rowwise_split_input":
            return RowwiseParallel(input_layouts=Replicate())
        case "replicated_with_grad_allreduce" if name.endswith(_HEAD_NORMS):
            return SequenceParallel(sequence_dim=2, use_local_output=True)  # [batch, tokens, this rank's heads, width]
    raise UnsupportedError(f"tensor parallelism of {name} in the style {style} is not known here")


def local(tensor: Any) -> Any:
    """This rank's part of a distributed tensor; any other tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def split_over(tensor: Any) -> tuple[str, ...]:
    """The dimensions of the mesh over which a tensor is cut; none for one that every rank has whole."""
    if not hasattr(tensor, "placements"):
        return ()
    names = tensor.device_mesh.mesh_dim_names
    return tuple(name for name, place in zip(names, tensor.placements, strict=True) if not place.is_replicate())


def settle(model: Any) -> None:
    """Sum up gradients that every tensor rank has only a part of: of weights that all have and use on their heads."""
    for parameter in model.parameters():
        gradient = parameter.grad
        if hasattr(gradient, "placements") and gradient.placements != parameter.placements:
            parameter.grad = gradient.redistribute(placements=parameter.placements)
