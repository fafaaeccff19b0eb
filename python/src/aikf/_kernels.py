"""The kernels that the package carries: the artefacts of cuda/kernels, as they are."""

from __future__ import annotations

import gzip
from importlib import resources


def image(major: int, minor: int) -> bytes:
    """Return what the driver loads on a card of compute capability major.minor, 8.0 or later.

    That is machine code for 8.0 to 8.9 and for 9.0, and PTX, which ends with a zero, for later cards.
    """
    if (major, minor) < (9, 0):
        return read("kernels_sm_80.cubin.gz")
    if (major, minor) == (9, 0):
        return read("kernels_sm_90.cubin.gz")
    return read("kernels_compute_90.ptx.gz") + b"\0"


def read(name: str) -> bytes:
    return gzip.decompress(resources.files(__package__).joinpath("kernels", name).read_bytes())
