"""topk for torch: what the extension is given of torch, and the ways of a call that are not the short one."""

from __future__ import annotations

import functools
import operator
import os
import re
import warnings
from typing import NamedTuple, Optional, SupportsIndex, Tuple

OLDEST_TORCH = (2, 4)

try:
    import torch
except ImportError as error:
    raise ImportError(
        f"aikf needs torch {OLDEST_TORCH[0]}.{OLDEST_TORCH[1]} or later, which is not installed: pip install torch"
    ) from error


def check_version(version: str) -> Tuple[int, int]:
    """Return the version of torch, or raise RuntimeError, naming both versions, if it is too old."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < OLDEST_TORCH:
        raise RuntimeError(f"aikf needs torch {OLDEST_TORCH[0]}.{OLDEST_TORCH[1]} or later, and this is torch {version}")
    return int(found[1]), int(found[2])


VERSION = check_version(torch.__version__)

from torch.autograd import forward_ad  # noqa: E402
from torch.autograd.graph import increment_version  # noqa: E402
from torch.compiler import is_dynamo_compiling as _is_compiling  # noqa: E402
from torch.overrides import handle_torch_function, has_torch_function  # noqa: E402

from . import _driver, _native  # noqa: E402

TARGET_CANDIDATES_VARIABLE = "AIKF_TARGET_STAGE2_CANDIDATES"
MOST_TARGET_CANDIDATES = 1 << 20


def target_candidates(value: Optional[str]) -> int:
    """Return what the variable asks for: 0, the plan's own choice, if it is not set or empty."""
    if not value:
        return 0
    if re.fullmatch(r"[0-9]{1,9}", value) and 1 <= int(value) <= MOST_TARGET_CANDIDATES:
        return int(value)
    raise ValueError(f"{TARGET_CANDIDATES_VARIABLE} = {value!r}, want an integer from 1 to {MOST_TARGET_CANDIDATES}")


def topk(
    x: torch.Tensor,
    k: int,
    dim: int = -1,
    largest: bool = True,
    sorted: bool = True,
    *,
    out: Optional[Tuple[torch.Tensor, torch.Tensor]] = None,
) -> torch.return_types.topk:
    """Return the k largest elements of x along a dimension, best first, and where they are.

    The result is the named tuple of :func:`torch.topk`: ``values``, in the dtype of x with the bits that x has, and
    ``indices``, int64. Both have the shape of x with k for the size of dimension ``dim``.

    Equal elements come with the smaller index first, also across the k-th place. NaN is larger than everything, and
    -0 equals +0. So the answer is the first k of ``torch.sort(x, dim, descending=largest, stable=True)``, and the same
    on the CPU and on every GPU.

    Args:
        x: a tensor of float32, float16 or bfloat16 and of any rank, on the CPU or on an NVIDIA GPU of compute
            capability 8.0 or later. Rows that lie one stride apart, which may be 0, are read where they are: padded
            vocabularies, slices, expanded rows. For others, and if ``dim`` is not the last dimension in memory, one
            contiguous copy is made.
        k: how many, from 0 to the size of the dimension.
        dim: the dimension along which to select.
        largest: False asks for the k smallest, smallest first; NaN is then last.
        sorted: is for the manners of torch.topk; results are always in order.
        out: two tensors to write to, values and indices. They are resized, with torch's warning, if they are not empty
            and have another shape.

    ``values`` can be differentiated, in both modes and twice too. The call works on the current stream of the device of x, can be
    captured in a CUDA graph, does not wait for the device, and allocates nothing but its results, and a workspace if k
    is above 2048. Under :func:`torch.compile`, ``torch.func`` transforms, tensor subclasses and the modes of torch it
    is the operator ``torch.ops.aikf.topk``.

    Raises:
        TypeError: x is no tensor, or has another dtype; k is no integer.
        RuntimeError: k is below 0 or above the size of the dimension; the NVIDIA driver or the GPU is too old; an out
            tensor has the wrong dtype or device.
        IndexError: x has no such dimension.
    """
    if out is not None:
        return _topk_out(x, k, dim, largest, out)
    if _is_compiling():
        return dispatch(x, k, dim, largest)
    return _short(x, k, dim, largest)


class CompiledResult(NamedTuple):
    """What topk returns in compiled code before torch 2.6, whose compiler cannot make the named tuple of torch.topk."""

    values: torch.Tensor
    indices: torch.Tensor


def dispatch(x: torch.Tensor, k: int, dim: int, largest: bool) -> torch.return_types.topk:
    """Select by way of torch's dispatcher, which sees to gradients, transforms, modes and subclasses."""
    if not isinstance(x, torch.Tensor):
        if has_torch_function((x,)):  # it stands for a tensor: one of torch.fx, for example
            return handle_torch_function(topk, (x,), x, k, dim, largest)
        raise TypeError(f"topk(): argument 'x' (position 1) must be Tensor, not {type(x).__name__}")
    if _is_compiling() and VERSION < (2, 6):
        return CompiledResult(*torch.ops.aikf.topk(x, k, dim, largest))
    if not _is_compiling():
        k, dim = _integer(k, "k", 2), _integer(dim, "dim", 3)
    if not _is_compiling() and (torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0):
        return torch.return_types.topk(_operator.Transformed.apply(x, k, dim, largest))
    return torch.return_types.topk(torch.ops.aikf.topk(x, k, dim, largest))


def _integer(value: SupportsIndex, argument: str, position: int) -> int:
    """Return the argument as torch's operators want it, or raise what torch.topk raises."""
    if type(value) in (int, torch.SymInt):
        return value  # type: ignore[return-value]
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise TypeError(f"topk(): argument '{argument}' (position {position}) must be int, not {type(value).__name__}")


def arrange(x: torch.Tensor, k: int, dim: int, largest: bool) -> torch.return_types.topk:
    """Select from rows that do not lie one stride apart: those of a contiguous copy."""
    if x.layout != torch.strided:
        return dispatch(x, k, dim, largest)  # which says that there is no kernel
    if x.dim() == 0:  # one element, of which torch.topk returns one also for k = 0
        values, indices = select(x.resolve_neg().reshape(1), 1, 0, largest)
        return torch.return_types.topk((values.reshape(()), indices.reshape(())))
    result = select(x.movedim(dim, -1).resolve_neg().contiguous(), k, -1, largest)
    if dim in (-1, x.dim() - 1):
        return result
    return torch.return_types.topk((result[0].movedim(-1, dim), result[1].movedim(-1, dim)))


# As torch warns.
RESIZED = (
    "An output with one or more elements was resized since it had shape {}, which does not match the required output "
    "shape {}. This behavior is deprecated, and in a future PyTorch release outputs will not be resized unless they have "
    "zero elements. You can explicitly reuse an out tensor t by resizing it, inplace, to zero elements with t.resize_(0)."
)


def _topk_out(
    x: torch.Tensor, k: int, dim: int, largest: bool, out: Tuple[torch.Tensor, torch.Tensor]
) -> torch.return_types.topk:
    """Select into two tensors."""
    if not isinstance(out, (tuple, list)):
        raise TypeError(f"topk(): argument 'out' must be tuple of Tensors, not {type(out).__name__}")
    if len(out) != 2:
        raise TypeError(f"expected tuple of 2 elements but got {len(out)}")
    if not _is_compiling():
        written = _short_into(x, k, dim, largest, *out)
        if written is not None:
            return written
    if has_torch_function((x, *out)) and not all(isinstance(t, torch.Tensor) for t in (x, *out)):
        return handle_torch_function(topk, (x, *out), x, k, dim, largest, out=out)
    for i, to in enumerate(out):
        if not isinstance(to, torch.Tensor):
            raise TypeError(f"expected Tensor as element {i} of argument 'out', but got {type(to).__name__}")
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, *out)):
        raise RuntimeError(
            "topk(): functions with out=... arguments don't support automatic differentiation, "
            "but one of the arguments requires grad."
        )
    for to, dtype in zip(out, (x.dtype, torch.int64)):
        if to.dtype != dtype:
            raise RuntimeError(f"Expected out tensor to have dtype {dtype}, but got {to.dtype} instead")
        if to.device != x.device:
            raise RuntimeError(f"Expected out tensor to have device {x.device}, but got {to.device} instead")
    result = topk(x, k, dim, largest)
    for to, made in zip(out, result):
        if to.shape != made.shape:
            if to.numel():
                warnings.warn(RESIZED.format(list(to.shape), list(made.shape)), UserWarning, stacklevel=3)
            to.resize_(made.shape)
        to.copy_(made)
    return torch.return_types.topk(tuple(out))


def probes() -> Tuple[Tuple[object, object], ...]:
    """Return functions that tell whether a mode or transform of torch is on, and what each says if none is."""
    expected = (
        (torch._C, "_len_torch_dispatch_stack", 0),
        (torch._C, "_len_torch_function_stack", 0),
        (torch._C, "_are_functorch_transforms_active", False),
        (torch._C, "_is_tracing", False),
    )
    found = [(getattr(module, name), quiet) for module, name, quiet in expected]
    found.append((functools.partial(forward_ad.__dict__.__getitem__, "_current_level"), -1))
    return tuple(found)


def no_stream(ordinal: int) -> int:
    raise RuntimeError(f"aikf.topk: a tensor on device {ordinal}, but this torch was built without CUDA")


def new_selector(**options: object) -> _native.Selector:
    """Return what topk is made of. The options plan and target_candidates steer its launch plans."""
    guards = torch._C._dynamo.guards  # has what compiled code allocates with, at half the cost
    return _native.Selector(
        types=(torch.Tensor, torch.nn.Parameter),
        dtypes=(torch.float32, torch.float16, torch.bfloat16),
        int64=torch.int64,
        result=torch.return_types.topk,
        empty=torch.empty_strided,
        short_empty=getattr(guards, "_empty_strided_cuda", None),
        short_empty_cpu=getattr(guards, "_empty_strided_cpu", None),
        current_device=getattr(torch._C, "_cuda_getDevice", int),
        grad_enabled=torch.is_grad_enabled,
        inference_enabled=torch.is_inference_mode_enabled,
        wrote=increment_version,
        stream=getattr(torch._C, "_cuda_getCurrentRawStream", no_stream),
        open=_driver.open_device,
        arrange=arrange,
        dispatch=dispatch,
        probes=probes(),
        **options,
    )


_selector = new_selector(target_candidates=target_candidates(os.environ.get(TARGET_CANDIDATES_VARIABLE)))
_short = _selector.topk
_short_into = _selector.into
select = _selector.select

from . import _operator  # noqa: E402  registers torch.ops.aikf.topk
