"""Times the top k of other software for `aikf bench --against`.

Usage: peers.py torch|numpy|onnxruntime|flashinfer|python:MODULE:FUNCTION [cpu|cuda:N]

FUNCTION takes (logits, k), a torch tensor [batch, vocab] and an int, and
returns (values, indices) of k entries a row, largest first.

A program of any language that speaks this protocol is measured by `--against
timed:COMMAND`, too; the device is its last word.

The first line written says which version answers, or the exit code is 3 if
this Python does not have it, or not the device. Then each line read is a request, and each line
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

Other requests look behind these numbers. They are about the inputs of the last
request that had any:

    {"calls": n}          make n calls on each input; answered by {"calls": n}.
                          The benchmark looks at its own clock meanwhile.
    {"refresh": FILE}     write the logits of the file, of the same shape, to where
                          the inputs lie; answered by {"refreshed": true}.
    {"answers": true, "values": FILE, "indices": FILE}
                          write the top k of what lies there now; answered by {}.

Software that does not answer them is measured, and marked as its own witness.

On a GPU a request also holds conditions, a list of {mode, cache}, and
cold_buffers, how many copies of the inputs cold calls rotate over; the answer
has one entry in times for each condition, and failed says of those without one
why. Graph: many calls captured in one graph, replayed between two events.
Eager: calls in a loop, and a wait at the end. If the request names a file
sort_indices, it receives those of a stable descending sort.

If a request holds sampling, tokens are drawn instead, one for each row, and
written to its file tokens (int32). It also holds temperature, top_p, min_p,
softcap, repetition, frequency, presence, logprobs and edits: lists of mask,
bias_ids, biases, penalty_ids and penalty_counts, one row after the other. Only
torch and flashinfer are sent such requests.
"""

import array
import importlib
import json
import math
import os
import sys
import time

SAMPLE_NS = 200_000
SAMPLE_NS_GPU = 1_000_000


class Torch:
    method = "torch.topk(x, k, sorted=True)"

    def __init__(self, device):
        import torch

        self.torch = torch
        self.version = torch.__version__
        self.device = device
        if device != "cpu":
            if not torch.cuda.is_available():
                raise ImportError("torch %s sees no CUDA device" % torch.__version__)
            torch.cuda.set_device(device)

    def load(self, request):
        if self.device == "cpu":
            self.torch.set_num_threads(request["threads"])
        # One array for each input, as a program has them.
        return [x.clone().to(self.device) for x in self.read(request, request["logits"])]

    def read(self, request, name):
        torch = self.torch
        with open(name, "rb") as file:
            raw = bytearray(file.read())
        x = torch.frombuffer(raw, dtype=getattr(torch, request["dtype"]))
        x = x.reshape(request["inputs"], request["batch"], request["vocab"])
        self.dtype = request["dtype"]
        if self.device == "cpu":
            try:
                torch.topk(x[0], 1)
            except RuntimeError:  # some versions lack a 16-bit type on the CPU
                x, self.dtype = x.float(), "float32"
        return [x[i] for i in range(request["inputs"])]

    def write(self, place, x):
        place.copy_(x)

    def wait(self):
        if self.device != "cpu":
            self.torch.cuda.synchronize()

    def select(self, x, k):
        return self.torch.topk(x, k, sorted=True)

    def answer(self, x, k):
        values, indices = self.select(x, k)
        return values.float().flatten().tolist(), indices.flatten().tolist()

    def sort_indices(self, x, k):
        return self.torch.sort(x, descending=True, stable=True)[1][:, :k].flatten().tolist()

    def sampling(self, request):
        """What draws a token for each row as the request says, and its calls in words."""
        return Sampling(self.torch, request, self.device).step()


class Sampling:
    """The pipelines of a PyTorch program, with what they can prepare prepared."""

    def __init__(self, torch, request, device):
        self.torch = torch
        self.request = request
        self.edits = {}
        rows = request["batch"]
        for name, entries in (request["edits"] or {}).items():
            kind = torch.float32 if name == "biases" else torch.int32 if name == "mask" else torch.int64
            self.edits[name] = torch.tensor(entries, dtype=kind, device=device).reshape(rows, -1)
        if self.edits:  # a program has the mask as booleans, or unpacks it in another kernel
            words = self.edits.pop("mask")
            bits = torch.arange(32, dtype=torch.int32, device=device)
            allowed = (words.unsqueeze(-1) >> bits & 1).bool().flatten(1)
            self.banned = ~allowed[:, : request["vocab"]]

    def step(self):
        name = self.request["sampling"]
        return {
            "pipeline": (self.pipeline, "topk, softmax, min-p, cumsum, multinomial, gather"),
            "edits": (self.edited, "masked_fill, scatter_add, where, scatter; topk, softmax, min-p, cumsum, multinomial, gather"),
            "logprobs": (self.with_logprobs, "topk, softmax, min-p, cumsum, multinomial, gather; log_softmax, topk"),
            "nanochat": (self.nanochat, "topk, tanh, softmax, multinomial, gather"),
            "greedy": (self.greedy, "argmax"),
            "min_p": (self.min_p, "softmax, amax, where, multinomial"),
            "top_p": (self.top_p, "softmax, sort, cumsum, masked_fill, multinomial, gather"),
            "no_filter": (self.no_filter, "softmax, multinomial"),
        }[name]

    def pipeline(self, x):
        torch, request = self.torch, self.request
        values, ids = torch.topk(x, request["top_k"], sorted=True)
        p = torch.softmax(values.float() / request["temperature"], -1)
        p = p.masked_fill(p < request["min_p"] * p[:, :1], 0)
        p = p / p.sum(-1, keepdim=True)
        p = p.masked_fill(p.cumsum(-1) - p >= request["top_p"], 0)
        return ids.gather(1, torch.multinomial(p, 1)).squeeze(1)

    def edited(self, x):
        request, edits = self.request, self.edits
        x = x.float().masked_fill(self.banned, -math.inf)
        x = x.scatter_add(1, edits["bias_ids"], edits["biases"])
        penalised = x.gather(1, edits["penalty_ids"])
        factor = request["repetition"]
        penalised = self.torch.where(penalised > 0, penalised / factor, penalised * factor)
        penalised = penalised - request["frequency"] * edits["penalty_counts"] - request["presence"]
        return self.pipeline(x.scatter(1, edits["penalty_ids"], penalised))

    def with_logprobs(self, x):
        tokens = self.pipeline(x)
        logprobs = self.torch.log_softmax(x.float(), -1)
        logprobs.gather(1, tokens.unsqueeze(1))
        self.torch.topk(logprobs, self.request["logprobs"])
        return tokens

    def nanochat(self, x):
        torch, request = self.torch, self.request
        values, ids = torch.topk(x, request["top_k"])
        cap = request["softcap"]
        values = cap * torch.tanh(values / cap) / request["temperature"]
        return ids.gather(1, torch.multinomial(torch.softmax(values, -1), 1)).squeeze(1)

    def greedy(self, x):
        return self.torch.argmax(x, -1)

    def min_p(self, x):
        p = self.torch.softmax(x.float(), -1)
        p = self.torch.where(p < self.request["min_p"] * p.amax(-1, keepdim=True), 0, p)
        return self.torch.multinomial(p, 1).squeeze(1)

    def top_p(self, x):
        torch = self.torch
        p, ids = torch.sort(torch.softmax(x.float(), -1), descending=True)
        p = p.masked_fill(p.cumsum(-1) - p >= self.request["top_p"], 0)
        return ids.gather(1, torch.multinomial(p, 1)).squeeze(1)

    def no_filter(self, x):
        return self.torch.multinomial(self.torch.softmax(x.float(), -1), 1).squeeze(1)


class FlashInfer(Torch):
    """Its sampling alone."""

    method = "flashinfer.sampling"

    def __init__(self, device):
        import flashinfer

        if device == "cpu":
            raise ImportError("flashinfer runs on a GPU only")
        super().__init__(device)
        self.version = flashinfer.__version__
        self.library = flashinfer.sampling

    def sampling(self, request):
        library, softmax = self.library, self.torch.softmax
        k, temperature = request["top_k"], request["temperature"]
        steps = {
            "pipeline": (
                lambda x: library.top_k_top_p_sampling_from_logits(x.float() / temperature, k, request["top_p"]),
                "top_k_top_p_sampling_from_logits, without min-p",
            ),
            "min_p": (
                lambda x: library.min_p_sampling_from_probs(softmax(x.float(), -1), request["min_p"]),
                "softmax, min_p_sampling_from_probs",
            ),
            "top_p": (
                lambda x: library.top_p_sampling_from_probs(softmax(x.float(), -1), request["top_p"]),
                "softmax, top_p_sampling_from_probs",
            ),
            "no_filter": (lambda x: library.sampling_from_logits(x.float()), "sampling_from_logits"),
        }
        if request["sampling"] not in steps:
            raise LookupError("flashinfer has no sampling %s" % request["sampling"])
        return steps[request["sampling"]]


class Function(Torch):
    """Any function of (logits, k) on torch tensors."""

    def __init__(self, name, device):
        super().__init__(device)
        _, module, function = name.split(":")
        sys.path.insert(0, os.getcwd())
        loaded = importlib.import_module(module)
        self.function = getattr(loaded, function, None)
        if self.function is None:
            raise ImportError("module %s has no %s" % (module, function))
        self.version = str(getattr(loaded, "__version__", "unknown"))
        self.method = "%s.%s(x, k)" % (module, function)

    def select(self, x, k):
        return self.function(x, k)


class NumPy:
    def __init__(self, device):
        import numpy

        if device != "cpu":
            raise ImportError("numpy runs on the CPU only")
        self.numpy = numpy
        self.version = numpy.__version__
        self.method = "argpartition(x, vocab - k), then a stable argsort of the k largest, negated"

    def load(self, request):
        return [x.copy() for x in self.read(request, request["logits"])]

    def read(self, request, name):
        np = self.numpy
        bits16 = request["dtype"] != "float32"
        self.dtype = request["dtype"]
        x = np.fromfile(name, dtype="<u2" if bits16 else "<f4")
        if self.dtype == "float16":
            x = x.view("<f2")
        elif bits16:  # there is no bfloat16: the same values as float32
            x, self.dtype = (x.astype(np.uint32) << 16).view(np.float32), "float32"
        return list(x.reshape(request["inputs"], request["batch"], request["vocab"]))

    def write(self, place, x):
        place[...] = x

    def wait(self):
        pass

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


def field(number, content):
    """A field of a protocol buffer: an int, or what has a length."""

    def varint(n):
        out = b""
        while n >= 128:
            out, n = out + bytes([n % 128 + 128]), n // 128
        return out + bytes([n])

    if isinstance(content, int):
        return varint(number * 8) + varint(content)
    content = content.encode() if isinstance(content, str) else content
    return varint(number * 8 + 2) + varint(len(content)) + content


def topk_model(element, k):
    """An ONNX model of one operator, TopK, sorted, over rows of elements of that type."""

    def value(name, element, *dimensions):
        shape = b"".join(field(1, field(2, d) if isinstance(d, str) else field(1, d)) for d in dimensions)
        return field(1, name) + field(2, field(1, field(1, element) + field(2, shape)))

    int64, opset, ir = 7, 11, 6
    node = b"".join([field(1, "x"), field(1, "k"), field(2, "values"), field(2, "indices"), field(4, "TopK")])
    graph = b"".join([
        field(1, node),
        field(2, "topk"),
        field(5, field(1, 1) + field(2, int64) + field(7, k) + field(8, "k")),
        field(11, value("x", element, "batch", "vocab")),
        field(12, value("values", element, "batch", k)),
        field(12, value("indices", int64, "batch", k)),
    ])
    return field(1, ir) + field(7, graph) + field(8, field(1, "") + field(2, opset))


class ONNXRuntime(NumPy):
    def __init__(self, device):
        import onnxruntime

        super().__init__(device)
        self.onnxruntime = onnxruntime
        self.version = onnxruntime.__version__
        self.method = "session.run of TopK(axis=-1, largest=1, sorted=1)"

    def session(self, element, k, threads):
        options = self.onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        return self.onnxruntime.InferenceSession(topk_model(element, k), options, providers=["CPUExecutionProvider"])

    def load(self, request):
        inputs = super().load(request)
        try:
            elements = {"float32": 1, "float16": 10}
            self.running = self.session(elements[self.dtype], request["top_k"], request["threads"])
        except Exception:  # most versions have no TopK of float16 on the CPU
            self.dtype = "float32"
            self.running = self.session(1, request["top_k"], request["threads"])
            inputs = [x.astype(self.numpy.float32) for x in inputs]
        return inputs

    def select(self, x, k):
        return self.running.run(None, {"x": x})


def quantile(ordered, q):
    place = q * (len(ordered) - 1)
    below = int(place)
    if below + 1 >= len(ordered):
        return ordered[-1]
    share = place - below
    # A step from the lower neighbour and never past the upper: quantiles of equal samples are equal.
    return min(ordered[below] + share * (ordered[below + 1] - ordered[below]), ordered[below + 1])


def rotate(peer, inputs, k, times):
    start = time.perf_counter_ns()
    for _ in range(times):
        for x in inputs:
            peer.select(x, k)
    return time.perf_counter_ns() - start


def measure(peer, request):
    inputs, k = hold(peer, request), request["top_k"]
    rotate(peer, inputs, k, 1)
    times = 1
    while rotate(peer, inputs, k, times) < SAMPLE_NS:
        times *= 2

    def call():
        rotate(peer, inputs, k, 1)
        return rotate(peer, inputs, k, times) / 1e3 / times / len(inputs)

    answer = sample(request, call)
    write_answers(peer, request, inputs)
    return dict(answer, method=peer.method, dtype=peer.dtype)


def hold(peer, request):
    """Loads the inputs, and keeps them for the requests that follow."""
    peer.request, peer.inputs = request, peer.load(request)
    return peer.inputs


def calls(peer, request):
    for _ in range(request["calls"]):
        for x in peer.inputs:
            peer.select(x, peer.request["top_k"])
    peer.wait()
    return {"calls": request["calls"]}


def refresh(peer, request):
    for place, x in zip(peer.inputs, peer.read(peer.request, request["refresh"])):
        peer.write(place, x)
    peer.wait()
    return {"refreshed": True}


def answers(peer, request):
    write_answers(peer, dict(request, top_k=peer.request["top_k"]), peer.inputs)
    return {}


def sample(request, call):
    """The quantiles of what many calls return: microseconds."""
    samples = []
    deadline = time.perf_counter() + request["budget_s"]
    while len(samples) < request["iters"] and (len(samples) < 11 or time.perf_counter() < deadline):
        samples.append(call())
    samples.sort()
    return {
        "us": quantile(samples, 0.5),
        "us_p10": quantile(samples, 0.1),
        "us_p90": quantile(samples, 0.9),
        "samples": len(samples),
    }


def write_answers(peer, request, inputs):
    k = request["top_k"]
    answers = {"values": array.array("f"), "indices": array.array("i")}
    if request.get("sort_indices"):
        answers["sort_indices"] = array.array("i")
    for x in inputs:
        values, indices = peer.answer(x, k)
        answers["values"].extend(values)
        answers["indices"].extend(indices)
        if "sort_indices" in answers:
            answers["sort_indices"].extend(peer.sort_indices(x, k))
    write_files(request, answers)


def write_files(request, answers):
    for name, entries in answers.items():
        if sys.byteorder == "big":
            entries.byteswap()
        with open(request[name], "wb") as out:
            entries.tofile(out)


def measure_gpu(peer, request):
    inputs, k = hold(peer, request), request["top_k"]
    times, failed = {}, {}
    call, method = (lambda x: peer.select(x, k)), peer.method
    if request.get("sampling"):
        try:
            call, method = peer.sampling(request)
        except LookupError as error:
            reason = str(error.args[0])
            failed = {c["mode"] + " " + c["cache"]: reason for c in request["conditions"]}
            return {"times": {}, "failed": failed, "method": method, "dtype": peer.dtype}
    for condition in request["conditions"]:
        mode, cache = condition["mode"], condition["cache"]
        buffers = inputs
        if cache == "cold":
            buffers = [inputs[i % len(inputs)].clone() for i in range(request["cold_buffers"])]
        timer = {"graph": graph_timer, "eager": eager_timer}[mode]
        try:
            times[mode + " " + cache] = sample(request, timer(peer.torch, call, buffers))
        except Exception as error:  # not everything can be captured
            failed[mode + " " + cache] = "%s: %s" % (type(error).__name__, str(error).split("\n")[0])
        del buffers
    if request.get("sampling"):
        tokens = array.array("i")
        for x in inputs:
            tokens.extend(call(x).tolist())
        write_files(request, {"tokens": tokens})
    else:
        write_answers(peer, request, inputs)
    return {"times": times, "failed": failed, "method": method, "dtype": peer.dtype}


def eager_rotation(torch, call, buffers, calls):
    """Calls without a wait in between: microseconds a call."""
    torch.cuda.synchronize()
    start = time.perf_counter_ns()
    for i in range(calls):
        call(buffers[i % len(buffers)])
    torch.cuda.synchronize()
    return (time.perf_counter_ns() - start) / 1e3 / calls


def whole_rotations(buffers, us):
    """As many calls as a sample lasts, and a whole number of rotations."""
    rotations = math.ceil(SAMPLE_NS_GPU / 1e3 / max(us, 0.5) / len(buffers))
    return len(buffers) * max(1, rotations)


def eager_timer(torch, call, buffers):
    eager_rotation(torch, call, buffers, 3)
    calls = whole_rotations(buffers, eager_rotation(torch, call, buffers, 10))
    return lambda: eager_rotation(torch, call, buffers, calls)


def graph_timer(torch, call, buffers):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):  # what a first call sets up must not be captured
        for _ in range(3):
            call(buffers[0])
    torch.cuda.synchronize()

    def capture(calls):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for i in range(calls):
                call(buffers[i % len(buffers)])
        return graph

    def replay(graph, calls):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        with torch.cuda.stream(stream):
            graph.replay()  # untimed; the timed one then waits in the queue already
            start.record()
            graph.replay()
            end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e3 / calls

    few = capture(8)
    replay(few, 8)
    calls = whole_rotations(buffers, replay(few, 8))
    graph = capture(calls)
    return lambda: replay(graph, calls)


def start(name, device):
    if name.startswith("python:"):
        return Function(name, device)
    known = {"torch": Torch, "numpy": NumPy, "onnxruntime": ONNXRuntime, "flashinfer": FlashInfer}
    return known[name](device)


def main():
    device = sys.argv[2] if len(sys.argv) > 2 else "cpu"
    try:
        peer = start(sys.argv[1], device)
    except ImportError as error:
        print(error, file=sys.stderr)
        sys.exit(3)
    print(json.dumps({"version": peer.version}), flush=True)
    for line in sys.stdin:
        try:
            request = json.loads(line)
            kinds = {"calls": calls, "refresh": refresh, "answers": answers}
            kind = next((kinds[name] for name in kinds if name in request), measure if device == "cpu" else measure_gpu)
            answer = kind(peer, request)
        except Exception as error:
            answer = {"error": "%s: %s" % (type(error).__name__, error)}
        print(json.dumps(answer), flush=True)


main()
