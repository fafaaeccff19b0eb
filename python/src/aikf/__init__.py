"""Top-k and token sampling of PyTorch tensors, exactly, with one rule for ties.

    import aikf
    values, indices = aikf.topk(logits, 50)
    tokens = aikf.sample(logits, top_k=50, top_p=0.9, seed=1).tokens

:func:`topk` stands in for :func:`torch.topk`. Equal values come with the smaller index first, also across the k-th
place, so the answer is the first k of ``torch.sort(x, descending=True, stable=True)``, on every device.

:func:`sample` draws tokens, which are the same on every device; :func:`sample_logits` and
:func:`aikf.nanochat.sample_next_token` are the calls of two other systems.

The environment variable ``AIKF_TARGET_STAGE2_CANDIDATES`` steers the launch plan; it changes the time, never the answer.
"""

from ._version import __version__
from ._torch import topk
from ._sample import SampleResult, Status, VerifyResult, apply_bitmask, apply_bitmask_, count_tokens, sample, sample_logits, speculative_verify
from . import nanochat

__all__ = [
    "SampleResult", "Status", "VerifyResult", "apply_bitmask", "apply_bitmask_", "count_tokens", "nanochat", "sample", "sample_logits",
    "speculative_verify", "topk", "__version__",
]  # fmt: skip
