"""Times the top k of other software for `aikf bench --against`.

Usage: peers.py torch|numpy

The first line written says which version answers, or the exit code is 3 if
this Python does not have it. Then each line read is a request, and each line
written its answer, both JSON.

A request: logits (a file of inputs * batch * vocab values, little-endian,
row-major), dtype, inputs, batch, vocab, top_k, threads, iters, budget_s, and
the files that receive the top k of each input: values (float32) and indices
(int32).

An answer: the median, and the 10th and 90th percentile, in microseconds, of
one call over a batch (us, us_p10, us_p90), the number of samples, the calls
that were timed (method), and the dtype they ran on; or an error.

The logits lie in memory, as the library's own array, before the clock starts.
A sample rotates over the inputs and lasts at least 200 microseconds.
"""

import array
import json
import sys
import time

SAMPLE_NS = 200_000


class Torch:
    def __init__(self):
        import torch

        self.torch = torch
        self.version = torch.__version__
        self.method = "torch.topk(x, k, sorted=True)"

    def load(self, request):
        torch = self.torch
        torch.set_num_threads(request["threads"])
        with open(request["logits"], "rb") as file:
            raw = bytearray(file.read())
        x = torch.frombuffer(raw, dtype=getattr(torch, request["dtype"]))
        x = x.reshape(request["inputs"], request["batch"], request["vocab"])
        self.dtype = request["dtype"]
        try:
            torch.topk(x[0], 1)
        except RuntimeError:  # some versions lack a 16-bit type on the CPU
            x, self.dtype = x.float(), "float32"
        # One array for each input, as a program has them.
        return [x[i].clone() for i in range(request["inputs"])]

    def select(self, x, k):
        return self.torch.topk(x, k, sorted=True)

    def answer(self, x, k):
        values, indices = self.select(x, k)
        return values.float().flatten().tolist(), indices.flatten().tolist()


class NumPy:
    def __init__(self):
        import numpy

        self.numpy = numpy
        self.version = numpy.__version__
        self.method = "argpartition(x, vocab - k), then a stable argsort of the k largest, negated"

    def load(self, request):
        np = self.numpy
        bits16 = request["dtype"] != "float32"
        self.dtype = request["dtype"]
        x = np.fromfile(request["logits"], dtype="<u2" if bits16 else "<f4")
        if self.dtype == "float16":
            x = x.view("<f2")
        elif bits16:  # there is no bfloat16: the same values as float32
            x, self.dtype = (x.astype(np.uint32) << 16).view(np.float32), "float32"
        shape = request["inputs"], request["batch"], request["vocab"]
        return [input.copy() for input in x.reshape(shape)]

    def select(self, x, k):
        np = self.numpy
        vocab = x.shape[-1]
        indices = np.argpartition(x, vocab - k, axis=-1)[:, vocab - k :]
        values = np.take_along_axis(x, indices, axis=-1)
        order = np.argsort(-values, axis=-1, kind="stable")
        return np.take_along_axis(values, order, axis=-1), np.take_along_axis(indices, order, axis=-1)

    def answer(self, x, k):
        values, indices = self.select(x, k)
        return values.astype(self.numpy.float32).flatten().tolist(), indices.flatten().tolist()


def quantile(ordered, q):
    place = q * (len(ordered) - 1)
    below = int(place)
    if below + 1 >= len(ordered):
        return ordered[-1]
    share = place - below
    return ordered[below] * (1 - share) + ordered[below + 1] * share


def rotate(peer, inputs, k, times):
    start = time.perf_counter_ns()
    for _ in range(times):
        for x in inputs:
            peer.select(x, k)
    return time.perf_counter_ns() - start


def measure(peer, request):
    inputs, k = peer.load(request), request["top_k"]
    rotate(peer, inputs, k, 1)
    times = 1
    while rotate(peer, inputs, k, times) < SAMPLE_NS:
        times *= 2
    samples = []
    deadline = time.perf_counter() + request["budget_s"]
    while len(samples) < request["iters"] and (len(samples) < 11 or time.perf_counter() < deadline):
        rotate(peer, inputs, k, 1)
        samples.append(rotate(peer, inputs, k, times) / 1e3 / times / len(inputs))
    samples.sort()

    all_values, all_indices = array.array("f"), array.array("i")
    for x in inputs:
        values, indices = peer.answer(x, k)
        all_values.extend(values)
        all_indices.extend(indices)
    for file, entries in (request["values"], all_values), (request["indices"], all_indices):
        if sys.byteorder == "big":
            entries.byteswap()
        with open(file, "wb") as out:
            entries.tofile(out)
    return {
        "us": quantile(samples, 0.5),
        "us_p10": quantile(samples, 0.1),
        "us_p90": quantile(samples, 0.9),
        "samples": len(samples),
        "method": peer.method,
        "dtype": peer.dtype,
    }


def main():
    try:
        peer = {"torch": Torch, "numpy": NumPy}[sys.argv[1]]()
    except ImportError as error:
        print(error, file=sys.stderr)
        sys.exit(3)
    print(json.dumps({"version": peer.version}), flush=True)
    for line in sys.stdin:
        try:
            answer = measure(peer, json.loads(line))
        except Exception as error:
            answer = {"error": "%s: %s" % (type(error).__name__, error)}
        print(json.dumps(answer), flush=True)


main()
