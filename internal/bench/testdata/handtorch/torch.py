"""As much of torch as peers.py calls, on lists: for tests without a GPU.

A graph keeps the calls that were made while it was captured, and an event the
time. HANDTORCH=uncapturable has every call under capture fail, as one that
waits for the device does.
"""

import os
import struct
import time

__version__ = "2.hand"
float32, float16, bfloat16 = "float32", "float16", "bfloat16"


class Tensor:
    def __init__(self, entries, shape):
        self.entries, self.shape = entries, tuple(shape)

    def reshape(self, *shape):
        return Tensor(self.entries, shape)

    def __getitem__(self, key):
        if isinstance(key, tuple):  # [:, :k]
            rows, k = self.shape[0], key[1].stop
            width = self.shape[1]
            return Tensor([e for i in range(rows) for e in self.entries[i * width : i * width + k]], (rows, k))
        size = len(self.entries) // self.shape[0]
        return Tensor(self.entries[key * size : (key + 1) * size], self.shape[1:])

    def clone(self):
        return Tensor(list(self.entries), self.shape)

    def copy_(self, other):
        self.entries[:] = other.entries

    def to(self, device):
        assert device.startswith("cuda:"), device
        return self

    def float(self):
        return self

    def flatten(self):
        return self

    def tolist(self):
        return list(self.entries)


def frombuffer(raw, dtype):
    if dtype == "float32":
        entries = struct.unpack("<%df" % (len(raw) // 4), raw)
    elif dtype == "float16":
        entries = struct.unpack("<%de" % (len(raw) // 2), raw)
    else:
        bits = struct.unpack("<%dH" % (len(raw) // 2), raw)
        entries = struct.unpack("<%df" % len(bits), struct.pack("<%dI" % len(bits), *(b << 16 for b in bits)))
    return Tensor(list(entries), (len(entries),))


def sort(x, descending, stable):
    assert descending and stable
    values, indices = [], []
    rows, width = x.shape
    for i in range(rows):
        row = x.entries[i * width : (i + 1) * width]
        order = sorted(range(width), key=lambda j: -row[j])
        values += [row[j] for j in order]
        indices += order
    return Tensor(values, x.shape), Tensor(indices, x.shape)


def topk(x, k, sorted=True):
    if cuda.capturing is not None:
        if os.environ.get("HANDTORCH") == "uncapturable":
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        cuda.capturing.append((x, k))
        return None
    values, indices = sort(x, descending=True, stable=True)
    return values[:, :k], indices[:, :k]


def argmax(x, dim):
    if cuda.capturing is not None:
        cuda.capturing.append((x, None))
        return None
    rows, width = x.shape
    all = [x.entries[i * width : (i + 1) * width] for i in range(rows)]
    return Tensor([width - 1 if os.environ.get("HANDTORCH") == "astray" else row.index(max(row)) for row in all], (rows,))


class CUDA:
    capturing = None

    def is_available(self):
        return os.environ.get("HANDTORCH") != "blind"

    def set_device(self, device):
        assert device == "cuda:2", device

    def synchronize(self):
        pass

    class Stream:
        pass

    class stream:
        def __init__(self, stream):
            pass

        def __enter__(self):
            pass

        def __exit__(self, *_):
            pass

    class CUDAGraph:
        def replay(self):
            for x, k in self.calls:
                argmax(x, -1) if k is None else topk(x, k)

    class graph:
        def __init__(self, graph, stream):
            self.graph = graph

        def __enter__(self):
            self.graph.calls = cuda.capturing = []

        def __exit__(self, *_):
            cuda.capturing = None

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = time.perf_counter()

        def synchronize(self):
            pass

        def elapsed_time(self, end):
            return (end.at - self.at) * 1e3


cuda = CUDA()
