"""Top-k of PyTorch tensors, exactly, with one rule for ties.

    import aikf
    values, indices = aikf.topk(logits, 50)

:func:`topk` stands in for :func:`torch.topk`. Equal values come with the smaller index first, also across the k-th
place, so the answer is the first k of ``torch.sort(x, descending=True, stable=True)``, on every device.

The environment variable ``AIKF_TARGET_STAGE2_CANDIDATES`` steers the launch plan; it changes the time, never the answer.
"""

from ._version import __version__
from ._torch import topk

__all__ = ["topk", "__version__"]
