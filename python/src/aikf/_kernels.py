"""The kernels that the package carries: the artefacts of cuda/kernels, as they are."""

from __future__ import annotations

import gzip
from importlib import resources
from typing import List


def images(major: int, minor: int) -> List[bytes]:
    """Return what the driver loads on a card of compute capability major.minor, 8.0 or later.

    That is machine code of all kernels for 8.0 to 8.9 and for 9.0. For later cards it is PTX, one image for each source, which
    ends with a zero: the driver compiles it when it is loaded, and who selects need not wait for samplers.
    """
    if (major, minor) < (9, 0):
        return [read("kernels_sm_80.cubin.gz")]
    if (major, minor) == (9, 0):
        return [read("kernels_sm_90.cubin.gz")]
    return [ptx + b"\0" for ptx in read("kernels_compute_90.ptx.gz").split(b"\0")[:-1]]


def may_hold(image: bytes, symbol: str) -> bool:
    """Return whether an image may have a kernel of that name: of PTX whether it has."""
    return image.startswith(b"\x7fELF") or b".entry " + symbol.encode() + b"(" in image


def read(name: str) -> bytes:
    return gzip.decompress(resources.files(__package__).joinpath("kernels", name).read_bytes())
