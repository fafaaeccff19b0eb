"""The operator torch.ops.aikf.sample: what sample is where torch wants to see it."""

from __future__ import annotations

import torch

from . import _sample
from ._operator import _library

_library.define(
    "sample(Tensor logits, Tensor?[] rows, Tensor?[] edits, float[] reals, int top_k, SymInt? seed, SymInt position, "
    "Generator? generator, SymInt draws, int first_draw, bool shared, bool replacement, bool nanochat, SymInt logprobs, "
    "bool processed, int invalid_token, int most_top_k, bool kept) -> (Tensor tokens, Tensor status, Tensor logprobs, Tensor ranks, "
    "Tensor top_ids, Tensor top_logprobs, Tensor kept_ids, Tensor kept_count, Tensor kept_probabilities)",
    tags=(torch.Tag.pt2_compliant_tag, torch.Tag.nondeterministic_seeded),
)
_library.impl("sample", _sample.run_all, "CPU")
_library.impl("sample", _sample.run_all, "CUDA")


@torch.library.register_fake("aikf::sample", lib=_library)
def _fake(logits, *rest):
    if logits.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise TypeError(f"aikf.sample: dtype {logits.dtype}, want torch.float32, torch.float16 or torch.bfloat16")
    return _sample.fake(logits, *rest)


def _no_gradient(ctx, inputs, output):
    ctx.mark_non_differentiable(*output)


def _backward(ctx, *gradients):
    return (None,) * 18


torch.library.register_autograd("aikf::sample", _backward, setup_context=_no_gradient, lib=_library)


_library.define(
    "speculative_verify(Tensor logits, Tensor drafted, Tensor? draft_logits, Tensor? draft_probabilities, Tensor? drafted_count, "
    "Tensor?[] rows, float[] target, float[] draft, int top_k, int draft_top_k, bool nanochat, bool draft_nanochat, SymInt? seed, "
    "SymInt position, Generator? generator, int first_draw, bool shared, int invalid_token, int most_top_k, int most_draft_top_k) "
    "-> (Tensor tokens, Tensor accepted, Tensor status)",
    tags=(torch.Tag.pt2_compliant_tag, torch.Tag.nondeterministic_seeded),
)
_library.impl("speculative_verify", _sample.run_verify, "CPU")
_library.impl("speculative_verify", _sample.run_verify, "CUDA")


@torch.library.register_fake("aikf::speculative_verify", lib=_library)
def _fake_verify(logits, drafted, *rest):
    if logits.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise TypeError(f"aikf.speculative_verify: dtype {logits.dtype}, want torch.float32, torch.float16 or torch.bfloat16")
    return tuple(logits.new_empty(shape, dtype=dtype) for shape, dtype in _sample.verify_shapes(drafted))


torch.library.register_autograd("aikf::speculative_verify", lambda ctx, *_: (None,) * 20, setup_context=_no_gradient, lib=_library)
