"""What only a GPU shows: streams, graphs, memory, contexts of threads, addresses beyond 32 bits."""

import os
import signal
import threading

import pytest
import torch
from oracle import DTYPES, check, holds, rows

import aikf
from aikf import _torch

BATCH = (16, 50304)


@pytest.fixture(autouse=True)
def gpu(cuda):
    """Every test here needs the GPU, and leaves no fault behind."""
    yield cuda
    torch.cuda.synchronize()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_random_shapes(dtype, gpu):
    random = torch.Generator().manual_seed(11)
    number = lambda most: int(2 ** (torch.rand((), generator=random) * torch.tensor(float(most)).log2()))  # noqa: E731
    for seed in range(200):
        n, vocab = number(200), number(200000)
        k = min(vocab, number(4096))
        kind = ("normal", "two values", "special", "masked")[seed % 4]
        x = rows(kind, n, vocab + 1, dtype, seed).to(gpu)
        check(x[:, seed % 2 : vocab + seed % 2], k, largest=bool(seed & 8))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("plan", ["block", "cluster", "two-stage", "any"])
def test_every_plan_answers_the_same(plan, dtype, gpu):
    if plan == "cluster" and torch.cuda.get_device_capability(gpu) < (9, 0):
        pytest.skip("clusters need compute capability 9.0")
    selector = _torch.new_selector(plan=plan)
    for kind in ("normal", "two values", "special", "constant", "masked"):
        for n, vocab, k in ((1, 50304, 50), (5, 151936, 200), (3, 10007, 300), (33, 4099, 7)):
            x = rows(kind, n, vocab, dtype, seed=k).to(gpu)
            for largest in (True, False):
                holds(selector.topk(x, k, -1, largest), x, k, -1, largest)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strides(dtype, gpu):
    """Rows at the end of their memory, at every alignment: what is beside them is not read."""
    for start in range(9):
        memory = rows("normal", 1, start + 2 * 10007 + 3, dtype, seed=start).to(gpu).flatten()
        check(memory.as_strided((2, 10007), (10010, 1), start), 50)


def test_same_bits_as_the_cpu(gpu):
    for dtype in DTYPES:
        x = rows("special", 7, 30011, dtype)
        for k in (1, 99, 3000):
            here, there = aikf.topk(x, k), aikf.topk(x.to(gpu), k)
            assert torch.equal(here.indices, there.indices.cpu())


def test_current_stream(gpu):
    """The call waits for what is before it in its stream, and not for another stream."""
    x = torch.zeros(BATCH, device=gpu)
    fill = rows("normal", *BATCH, torch.float32).to(gpu)
    aikf.topk(x, 5)
    torch.cuda.synchronize()
    first, second = torch.cuda.Stream(), torch.cuda.Stream()
    with torch.cuda.stream(first):
        torch.cuda._sleep(200_000_000)  # about 0.1 s
        x.copy_(fill)
        late = aikf.topk(x, 5)
    with torch.cuda.stream(second):
        early = aikf.topk(x, 5)
    second.synchronize()
    assert not first.query(), "the other stream was waited for"
    assert (early.values == 0).all()
    first.synchronize()
    holds(late, fill, 5)


def test_two_streams_at_once(gpu):
    streams = [torch.cuda.Stream() for _ in range(2)]
    inputs = [rows("normal", 4, 50304, torch.bfloat16, seed).to(gpu) for seed in range(2)]
    torch.cuda.synchronize()
    results = []
    for i in range(200):
        with torch.cuda.stream(streams[i % 2]):
            results.append((inputs[i % 2], aikf.topk(inputs[i % 2], 50 if i % 4 < 2 else 2500)))
    torch.cuda.synchronize()
    for x, result in results:
        holds(result, x, result.values.shape[1])


def test_no_wait_for_the_device(gpu):
    x = rows("normal", 4, 50304, torch.bfloat16).to(gpu)
    aikf.topk(x, 50)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError):
            x.sum().item()  # what the mode is for
        aikf.topk(x, 50)
        aikf.topk(x, 3000)
        aikf.topk(x, 2, 0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda._sleep(200_000_000)
    aikf.topk(x, 50)
    assert not torch.cuda.current_stream().query()


def test_allocations(gpu):
    def allocations(call):
        call()
        before = torch.cuda.memory_stats()["allocation.all.allocated"]
        call()
        return torch.cuda.memory_stats()["allocation.all.allocated"] - before

    x = rows("normal", 4, 50304, torch.bfloat16).to(gpu)
    out = aikf.topk(x, 50)
    assert allocations(lambda: aikf.topk(x, 50)) == 2
    assert allocations(lambda: aikf.topk(x[:, :50000], 50)) == 2
    assert allocations(lambda: aikf.topk(x, 3000)) == 3
    assert allocations(lambda: aikf.topk(x, 50, out=out)) == 0
    del out
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for k in (50, 3000):
        for _ in range(20):
            aikf.topk(x, k)
    assert torch.cuda.memory_allocated() == before


@pytest.mark.parametrize("k", [1, 50, 200, 2048, 3000])
def test_capture_and_replay(k, gpu):
    x = rows("normal", *BATCH, torch.bfloat16).to(gpu)
    out = aikf.topk(x, k)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = aikf.topk(x, k)
        padded = aikf.topk(x[:, :50257], k, largest=False)
        aikf.topk(x, k, out=out)
    for seed in range(4):
        x.copy_(rows("two values" if seed == 2 else "normal", *BATCH, torch.bfloat16, seed))
        for tensor in (*result, *out):
            tensor.zero_()
        graph.replay()
        torch.cuda.synchronize()
        holds(result, x, k)
        holds(out, x, k)
        holds(padded, x[:, :50257], k, largest=False)


def test_first_call_of_all_is_captured(isolated):
    """Kernels are loaded by the first call, also if it is captured."""
    program = """
import torch, aikf
x = torch.randn(2, 50304, device="cuda", dtype=torch.bfloat16)
torch.cuda.synchronize()
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    result = aikf.topk(x, 50)
graph.replay()
torch.cuda.synchronize()
expected = torch.sort(x, stable=True, descending=True).indices[:, :50]
print(torch.equal(result.indices, expected))
"""
    assert isolated(program) == "True\n"


def test_compiled_into_a_graph(gpu):
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: aikf.topk(x, 50), fullgraph=True, mode="reduce-overhead")
    for seed in range(5):
        x = rows("normal", 4, 50304, torch.bfloat16, seed).to(gpu)
        torch.compiler.cudagraph_mark_step_begin()
        holds(torch.return_types.topk([t.clone() for t in compiled(x)]), x, 50)


def test_threads_have_no_context_of_their_own(gpu):
    x = rows("normal", 4, 50304, torch.bfloat16).to(gpu)
    torch.cuda.synchronize()
    failures = []

    def work(k):
        try:
            for _ in range(20):
                holds(aikf.topk(x, k), x, k)
            with torch.cuda.stream(torch.cuda.Stream()):
                holds(aikf.topk(x, k), x, k)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in (1, 50, 200, 3000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_forked_child(gpu):
    """A child of fork cannot use the GPU, and is told so by torch; the CPU it can use."""
    x, here = rows("normal", 1, 1000, torch.float32).to(gpu), rows("normal", 1, 1000, torch.float32)
    holds(aikf.topk(x, 5), here.to(gpu), 5)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            aikf.topk(here, 5)
            aikf.topk(x, 5)
            message = "no error"
        except RuntimeError as error:
            message = str(error)
        os.write(writer, message.encode()[:2000])
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert "forked subprocess" in os.read(reader, 4000).decode()
    check(x, 5)


def test_mixed_devices(gpu):
    x = rows("normal", 4, 100, torch.float32)
    out = torch.empty(4, 3), torch.empty(4, 3, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="Expected out tensor to have device cuda:0, but got cpu instead"):
        aikf.topk(x.to(gpu), 3, out=out)
    with pytest.raises(RuntimeError, match="Expected out tensor to have device cpu, but got cuda:0 instead"):
        aikf.topk(x, 3, out=tuple(t.to(gpu) for t in out))
    with pytest.raises(RuntimeError, match="Expected out tensor to have device"):
        aikf.topk(x.to(gpu), 3, out=(out[0].to(gpu), out[1]))


def test_other_device_than_the_current(gpu):
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU: that of the tensor is always the current one")
    x = rows("normal", 4, 50304, torch.bfloat16).to("cuda:1")
    for k in (50, 3000):
        check(x, k)
        with torch.cuda.device(1):
            check(x, k)
        with torch.cuda.stream(torch.cuda.Stream(1)):
            check(x, k)
    check(x.to("cuda:0"), 50)


def test_addresses_beyond_32_bits(gpu):
    """Rows whose offsets do not fit 32 bits, in elements."""
    free, _ = torch.cuda.mem_get_info()
    stride = (1 << 32) + 8
    if free < 2 * stride + (2 << 30):
        pytest.skip(f"{free >> 30} GiB of memory are free, want {2 * stride + (2 << 30) >> 30}")
    memory = torch.zeros(stride + 5000, dtype=torch.bfloat16, device=gpu)
    view = memory.as_strided((2, 5000), (stride, 1))
    view.copy_(rows("normal", 2, 5000, torch.bfloat16))
    for k in (50, 3000):
        check(view, k)


def test_many_rows(gpu):
    x = torch.randn(100_000, 64, device=gpu, dtype=torch.bfloat16)
    check(x, 8)
    check(torch.randn(3, 5, 7, 1000, device=gpu), 10)
