"""The call of nanochat's engine that draws a token.

In its engine.py, the function of that name goes and this line comes:

    from aikf.nanochat import sample_next_token
"""

from __future__ import annotations

from typing import Optional

import torch
from torch.compiler import is_dynamo_compiling as _is_compiling

from . import _sample

__all__ = ["sample_next_token"]


def sample_next_token(
    logits: torch.Tensor, rng: Optional[torch.Generator], temperature: float = 1.0, top_k: Optional[int] = None
) -> torch.Tensor:
    """Draw one token for each row of [rows, vocab] logits, as int64 [rows, 1].

    The top_k largest logits are kept (None, 0 and below, and vocab or more: all), divided by the temperature and
    drawn from; a temperature of 0 takes the largest. rng is a generator of the device of the logits, or None for the default
    one, as in :func:`aikf.sample`. Rows of one generator have draws of their own: a row that is expanded gives different tokens.

    Raises:
        ValueError: the temperature is below 0 or not finite; logits are not of two dimensions.
        TypeError, RuntimeError: as :func:`aikf.sample`.
    """
    if _is_compiling():
        return _sample.next_token(logits, rng, temperature, top_k)
    return _sample.short_next_token(logits, rng, temperature, top_k)
