"""The operator torch.ops.aikf.topk: what topk is where torch wants to see it."""

from __future__ import annotations

import torch

from . import _torch

_library = torch.library.Library("aikf", "DEF")
_library.define(
    "topk(Tensor x, SymInt k, int dim=-1, bool largest=True) -> (Tensor values, Tensor indices)",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def _select(x, k, dim=-1, largest=True):
    return tuple(_torch.select(x, k, dim, largest))


_library.impl("topk", _select, "CPU")
_library.impl("topk", _select, "CUDA")


def _check_dim(dim, dims):
    if not -dims <= dim < dims:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-dims}, {dims - 1}], but got {dim})")


@torch.library.register_fake("aikf::topk", lib=_library)
def _fake(x, k, dim=-1, largest=True):
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise TypeError(f"aikf.topk: dtype {x.dtype}, want torch.float32, torch.float16 or torch.bfloat16")
    dims = max(x.dim(), 1)
    _check_dim(dim, dims)
    if x.dim() == 0:
        torch._check(0 <= k <= 1, lambda: f"selected index k out of range: k = {k}, and dimension 0 has 1")
        return torch.empty_like(x), torch.empty_like(x, dtype=torch.int64)
    size = x.shape[dim]
    torch._check(k >= 0, lambda: f"selected index k out of range: k = {k}, and dimension {dim % dims} has {size}")
    torch._check(k <= size, lambda: f"selected index k out of range: k = {k}, and dimension {dim % dims} has {size}")
    # The results lie as rows, wherever their dimension is.
    shape = list(x.shape)
    del shape[dim]
    shape.append(k)
    values, indices = x.new_empty(shape), x.new_empty(shape, dtype=torch.int64)
    if dim in (-1, x.dim() - 1):
        return values, indices
    return values.movedim(-1, dim), indices.movedim(-1, dim)


def _remember(ctx, inputs, output):
    x, _, ctx.dim, _ = inputs
    ctx.shape = x.shape
    ctx.save_for_backward(output[1])
    ctx.save_for_forward(output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, grad_values, grad_indices):
    (indices,) = ctx.saved_tensors
    # Each index is there once: nothing is added, in whatever order.
    return grad_values.new_zeros(ctx.shape).scatter(ctx.dim, indices, grad_values), None, None, None


torch.library.register_autograd("aikf::topk", _backward, setup_context=_remember, lib=_library)


class Transformed(torch.autograd.Function):
    """The operator for what its registration has no rules for: torch.func's transforms, and forward mode."""

    backward = staticmethod(_backward)
    setup_context = staticmethod(_remember)

    @staticmethod
    def forward(x, k, dim, largest):
        return torch.ops.aikf.topk(x, k, dim, largest)

    @staticmethod
    def jvp(ctx, tangent, *_):
        (indices,) = ctx.saved_tensors
        return tangent.gather(ctx.dim, indices), None

    @staticmethod
    def vmap(info, in_dims, x, k, dim, largest):
        x = x.movedim(in_dims[0], 0)
        dims = max(x.dim() - 1, 1)
        _check_dim(dim, dims)
        if x.dim() > 1:
            return tuple(_torch.dispatch(x, k, dim % dims + 1, largest)), (0, 0)
        if not 0 <= k <= 1:
            raise RuntimeError(f"selected index k out of range: k = {k}, and dimension 0 has 1")
        values, indices = _torch.dispatch(x.unsqueeze(1), 1, 1, largest)  # of single elements
        return (values.squeeze(1), indices.squeeze(1)), (0, 0)
