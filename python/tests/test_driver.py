"""Launches, through a driver over host memory: the kernels are those of cuda/kernels, run on the CPU.

A tensor on a GPU is played by one on the CPU that says it were. What is put into a stream runs when the stream is waited
for, and not before.
"""

import ctypes
import itertools
import os
import shutil
import signal
import threading

import pytest
import torch
from oracle import DTYPES, holds, rows

import aikf
from aikf import _driver, _native, _torch


class Resident:
    """A tensor that says it is on a GPU."""

    is_cuda, is_cpu, requires_grad = True, False, False

    def __init__(self, tensor, ordinal=0):
        self.tensor, self.device = tensor, torch.device("cuda", ordinal)

    def get_device(self):
        return self.device.index

    def __getattr__(self, name):
        return getattr(self.tensor, name)


class Fake:
    """The driver over host memory, and a selector that launches with it."""

    def __init__(self, path, **options):
        self.library = ctypes.CDLL(str(path))
        self.library.fakecuda_calls.restype = ctypes.c_longlong
        self.library.fakecuda_live.restype = ctypes.c_longlong
        self.library.fakecuda_foreign_stream.restype = ctypes.c_void_p
        self.path = path
        self.streams = {}
        self.allocated = []
        self.arranged = []
        self.options = options

    def start(self):
        """Start the driver; settings come before."""
        self.driver = _driver.Driver(str(self.path))
        self.selector = self.new_selector(**self.options)
        return self

    def new_selector(self, **options):
        given = dict(
            types=(Resident,),
            dtypes=DTYPES,
            int64=torch.int64,
            result=torch.return_types.topk,
            empty=self.empty,
            short_empty=None,
            short_empty_cpu=None,
            current_device=int,
            grad_enabled=torch.is_grad_enabled,
            inference_enabled=torch.is_inference_mode_enabled,
            wrote=lambda to: torch.autograd.graph.increment_version(to.tensor),
            stream=lambda ordinal: self.streams.get(ordinal, 0),
            open=self.driver.open,
            arrange=lambda *args: self.arranged.append(args),
            dispatch=None,
            probes=(),
        )
        return _native.Selector(**{**given, **options})

    def empty(self, sizes, strides, *, dtype, device):
        made = Resident(torch.empty_strided(sizes, strides, dtype=dtype).fill_(77), device.index)
        self.allocated.append(made)
        return made

    def set(self, name, value):
        self.library.fakecuda_set(name.encode(), ctypes.c_longlong(value))

    def fail(self, function, code, nth=1):
        self.library.fakecuda_fail(function.encode(), ctypes.c_longlong(nth), ctypes.c_int(code))

    def calls(self, function):
        return self.library.fakecuda_calls(function.encode())

    def stream(self, ordinal=0):
        """Make a stream, the current one of the device."""
        self.streams[ordinal] = self.library.fakecuda_foreign_stream(ctypes.c_int(ordinal))
        return ctypes.c_void_p(self.streams[ordinal])

    def in_context(self, ordinal, function, *args):
        """Call a function of the driver that wants a current context."""
        context = ctypes.c_void_p()
        self.driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), ctypes.c_int(ordinal))
        self.driver.call("cuCtxPushCurrent_v2", context)
        try:
            self.driver.call(function, *args)
        finally:
            self.driver.call("cuCtxPopCurrent_v2", ctypes.byref(context))

    def wait(self, ordinal=0):
        self.in_context(ordinal, "cuCtxSynchronize")

    def topk(self, x, k, largest=True, ordinal=0, selector=None):
        return (selector or self.selector).topk(Resident(x, ordinal), k, -1, largest)

    def check(self, x, k, largest=True, ordinal=0, selector=None):
        result = self.topk(x, k, largest, ordinal, selector)
        assert not (result.indices.tensor.numel() and (result.indices.tensor != 77).all()), "the kernel ran at once"
        self.wait(ordinal)
        assert result.values.device == result.indices.device == torch.device("cuda", ordinal)
        holds(torch.return_types.topk((result.values.tensor, result.indices.tensor)), x, k, -1, largest)


@pytest.fixture
def fake(fake_library):
    fake = Fake(fake_library)
    fake.library.fakecuda_reset()
    yield fake
    fake.library.fakecuda_reset()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("plan", ["", "block", "cluster", "two-stage", "any"])
def test_every_plan_answers_the_same(fake, plan, dtype):
    fake.start()
    selector = fake.new_selector(plan=plan)
    for kind, (n, vocab, k) in itertools.product(("normal", "two values", "special"), ((1, 5000, 50), (3, 2100, 7), (2, 4099, 300))):
        for largest in (True, False):
            fake.check(rows(kind, n, vocab, dtype, seed=k), k, largest, selector=selector)


def test_strides_and_expanded_rows(fake):
    fake.start()
    base = rows("normal", 4, 600, torch.bfloat16)
    for view in (base[:, :500], base[:, 1:], base[::2], base[0].expand(3, -1), base.view(2, 2, 600)[:, :, 3:]):
        fake.check(view, 20)
    assert not fake.arranged
    fake.topk(base[:, ::2], 3)
    assert len(fake.arranged) == 1


def test_workspace_is_allocated_only_for_large_k(fake):
    fake.start()
    fake.check(rows("normal", 2, 5000, torch.float32), 2048)
    assert len(fake.allocated) == 2
    fake.allocated.clear()
    fake.check(rows("normal", 2, 5000, torch.float32), 2049)
    assert [t.dtype for t in fake.allocated] == [torch.float32, torch.int64, torch.int64]
    assert fake.allocated[2].numel() == 2 * 4096


def test_short_allocation_is_for_the_current_device(fake):
    """The allocator of compiled code takes no device: it is asked only if the tensor is on the current one."""
    fake.set("devices", 2)
    fake.start()
    current, asked = 0, []

    def short(sizes, strides, dtype):
        asked.append(dtype)
        return fake.empty(sizes, strides, dtype=dtype, device=torch.device("cuda", current))

    selector = fake.new_selector(short_empty=short, current_device=lambda: current)
    x = rows("normal", 2, 300, torch.bfloat16)
    fake.check(x, 5, ordinal=0, selector=selector)
    assert asked == [torch.bfloat16, torch.int64]
    fake.check(x, 5, ordinal=1, selector=selector)
    assert len(asked) == 2
    current = 1
    fake.check(x, 5, ordinal=1, selector=selector)
    assert len(asked) == 4


def test_nothing_is_launched_without_rows_or_results(fake):
    fake.start()
    for x, k in ((torch.empty(0, 9), 3), (torch.empty(4, 9), 0), (torch.empty(4, 0), 0)):
        assert fake.topk(x, k).values.shape == (len(x), k)
    assert fake.calls("cuLaunchKernelEx") == 0


def test_the_current_stream_is_used(fake):
    fake.start()
    x = rows("normal", 1, 300, torch.float32)
    first = fake.stream()
    before = fake.topk(x, 3)
    second = fake.stream()
    after = fake.topk(x, 3)
    fake.in_context(0, "cuStreamSynchronize", second)
    assert (before.indices.tensor == 77).all() and not (after.indices.tensor == 77).any()
    fake.in_context(0, "cuStreamSynchronize", first)
    assert torch.equal(before.indices.tensor, after.indices.tensor)


def test_default_stream_runs_on_the_device_of_the_tensor(fake):
    """Whatever context is current on the thread, and it is so again afterwards."""
    fake.set("devices", 2)
    fake.start()
    x = rows("normal", 2, 300, torch.bfloat16)
    current = ctypes.c_void_p()
    for ordinal in (0, 1, 0):
        fake.check(x, 5, ordinal=ordinal)
        fake.driver.call("cuCtxGetCurrent", ctypes.byref(current))
        assert not current.value
    # A thread that has the context already does not push it again.
    context = ctypes.c_void_p()
    fake.driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), ctypes.c_int(1))
    fake.driver.call("cuCtxPushCurrent_v2", context)
    pushes = fake.calls("cuCtxPushCurrent_v2")
    fake.topk(x, 5, ordinal=1)
    assert fake.calls("cuCtxPushCurrent_v2") == pushes
    fake.topk(x, 5, ordinal=0)
    assert fake.calls("cuCtxPushCurrent_v2") == pushes + 1
    fake.driver.call("cuCtxGetCurrent", ctypes.byref(current))
    assert current.value == context.value
    fake.driver.call("cuCtxPopCurrent_v2", ctypes.byref(context))


def test_stream_needs_no_context(fake):
    fake.start()
    fake.stream()
    x = rows("normal", 2, 300, torch.bfloat16)
    fake.check(x, 5)
    pushes = fake.calls("cuCtxPushCurrent_v2")
    fake.topk(x, 5)
    assert fake.calls("cuCtxPushCurrent_v2") == pushes


def test_driver_that_wants_a_context_gets_it(fake):
    fake.start()
    fake.stream()
    fake.set("bind_context", 1)
    fake.check(rows("normal", 2, 300, torch.bfloat16), 5)


def test_threads(fake):
    fake.start()
    x = rows("normal", 2, 300, torch.float32)
    failures = []

    def work(seed):
        try:
            for _ in range(20):
                fake.topk(x, 1 + seed % 7)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    fake.wait()
    results = [t for t in fake.allocated if t.dtype == torch.int64]
    assert len(results) == 160
    for indices in results:
        assert torch.equal(indices.tensor, torch.sort(x, stable=True, descending=True).indices[:, : indices.shape[-1]])


def test_capture_and_replay(fake):
    fake.start()
    x = rows("normal", 2, 300, torch.bfloat16, seed=1)
    stream = fake.stream()
    graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
    # The first call of all, which loads the kernels, while the stream is captured.
    fake.driver.call("cuStreamBeginCapture_v2", stream, ctypes.c_int(2))
    result = fake.topk(x, 5)
    fake.driver.call("cuStreamEndCapture", stream, ctypes.byref(graph))
    fake.driver.call("cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, ctypes.c_ulonglong(0))
    assert fake.calls("cuThreadExchangeStreamCaptureMode") == 2
    for seed in (1, 2, 3):
        x.copy_(rows("normal", 2, 300, torch.bfloat16, seed=seed))
        fake.driver.call("cuGraphLaunch", ready, stream)
        fake.in_context(0, "cuStreamSynchronize", stream)
        holds(torch.return_types.topk((result.values.tensor, result.indices.tensor)), x, 5)


def test_into_writes_to_the_tensors(fake):
    fake.start()
    x = rows("normal", 2, 300, torch.float32)
    values, indices = torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int64)
    result = fake.selector.into(Resident(x), 3, -1, True, Resident(values), Resident(indices))
    fake.wait()
    holds(torch.return_types.topk((values, indices)), x, 3)
    assert result.values.tensor is values and not fake.allocated
    unfit = [
        (Resident(values, 1), Resident(indices)),
        (Resident(values.half()), Resident(indices)),
        (Resident(values), Resident(indices.int())),
        (Resident(values[:, :2]), Resident(indices)),
        (Resident(torch.zeros(3, 2).t()), Resident(indices)),
        (Resident(x.view(200, 3)[:2]), Resident(indices)),
    ]
    for pair in unfit:
        assert fake.selector.into(Resident(x), 3, -1, True, *pair) is None


@pytest.mark.parametrize("architecture, clusters, cluster_plan", [((8, 0), 0, False), ((9, 0), 16, True), ((12, 0), 16, True)])
def test_architectures(fake, architecture, clusters, cluster_plan):
    for name, value in zip(("major", "minor"), architecture):
        fake.set(name, value)
    fake.set("standin", 1)  # vocabularies this long take the kernels seconds
    fake.start()
    fake.check(rows("normal", 1, 262144, torch.bfloat16), 50)
    fake.check(rows("normal", 1, 50304, torch.float16), 50)
    assert _native.plan(1, 262144, 50, "bfloat16", 132, clusters)["name"] == ("cluster" if cluster_plan else "block")


def test_few_multiprocessors_have_smaller_clusters(fake):
    fake.set("multiprocessors", 4)
    fake.start()
    kernels = {symbol: 0 for symbol in _native.symbols()}
    assert fake.driver.open(0) is not None
    library = ctypes.c_void_p()
    fake.driver.call("cuLibraryLoadData", ctypes.byref(library), b"\x7fELF", *[None] * 2, 0, *[None] * 2, 0)
    for symbol in kernels:
        kernel = ctypes.c_void_p()
        fake.driver.call("cuLibraryGetKernel", ctypes.byref(kernel), library, symbol.encode())
        kernels[symbol] = kernel.value
    context = ctypes.c_void_p()
    fake.driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), ctypes.c_int(0))
    fake.driver.call("cuCtxPushCurrent_v2", context)
    assert fake.driver._cluster_blocks(kernels) == 4
    fake.driver.call("cuCtxPopCurrent_v2", ctypes.byref(context))


def test_too_old(fake):
    fake.set("version", 11080)
    with pytest.raises(RuntimeError, match=r"supports CUDA 11\.8, want CUDA 12\.0 \(driver 525\) or newer"):
        fake.start()
    fake.set("version", 12000)
    fake.set("major", 7)
    fake.set("minor", 5)
    fake.start()
    with pytest.raises(RuntimeError, match=r"device 0 has compute capability 7\.5, want 8\.0 or later"):
        fake.topk(torch.zeros(3), 1)


def test_no_driver(tmp_path):
    with pytest.raises(RuntimeError, match="the NVIDIA driver: .*libcuda.so.none"):
        _driver.Driver("libcuda.so.none")
    library = tmp_path / "libcuda.so.1"
    library.write_bytes(b"no library")
    with pytest.raises(RuntimeError, match="the NVIDIA driver"):
        _driver.Driver(str(library))


def test_driver_that_lacks_a_function(fake):
    fake.start()
    with pytest.raises(RuntimeError, match="the NVIDIA driver has no cuWithoutName"):
        fake.driver.call("cuWithoutName")


@pytest.mark.parametrize("function, code, name", [
    ("cuDevicePrimaryCtxRetain", 2, "CUDA_ERROR_OUT_OF_MEMORY"),
    ("cuLibraryLoadData", 200, "CUDA_ERROR_INVALID_IMAGE"),
    ("cuLibraryGetKernel", 400, "CUDA_ERROR_INVALID_HANDLE"),
    ("cuKernelGetFunction", 2, "CUDA_ERROR_OUT_OF_MEMORY"),
    ("cuLaunchKernelEx", 701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"),
    ("cuLaunchKernelEx", 12345, "unknown error"),
])  # fmt: skip
def test_failing_calls_are_named_and_tried_again(fake, function, code, name):
    fake.start()
    x = rows("normal", 2, 300, torch.float32)
    fake.fail(function, code)
    with pytest.raises(RuntimeError, match=rf"aikf: {function}: {name} \({code}\)"):
        fake.topk(x, 3)
    current = ctypes.c_void_p()
    fake.driver.call("cuCtxGetCurrent", ctypes.byref(current))
    assert not current.value, "a context was left behind"
    fake.check(x, 3)


def test_fault_of_a_kernel_is_reported_by_the_next_call(fake):
    fake.start()
    fake.topk(torch.zeros(9), 1)
    fake.fail("kernel", 700)
    with pytest.raises(RuntimeError, match="CUDA_ERROR_ILLEGAL_ADDRESS"):
        fake.wait()
    with pytest.raises(RuntimeError, match=r"cuLaunchKernelEx: CUDA_ERROR_ILLEGAL_ADDRESS \(700\)"):
        fake.topk(torch.zeros(9), 1)


def test_image_without_the_kernel(fake):
    fake.start()
    device = _native.Device(
        ordinal=3,
        context=0,
        launch=0,
        push=0,
        pop=0,
        current=0,
        multiprocessors=132,
        cluster_blocks=0,
        kernels={},
        load=lambda symbol: {},
        error=print,
    )
    fake.driver.open = lambda ordinal: device
    with pytest.raises(RuntimeError, match="device 3 has no kernel select_f32_block"):
        fake.new_selector().topk(Resident(torch.zeros(9)), 1, -1, True)


def test_torch_without_cuda():
    with pytest.raises(RuntimeError, match="this torch was built without CUDA"):
        _torch.no_stream(0)


def test_forced_plan_that_does_not_fit(fake):
    fake.start()
    with pytest.raises(RuntimeError, match="no launch plan for rows = 1, vocab = 5000, k = 500"):
        fake.new_selector(plan="cluster").topk(Resident(torch.zeros(5000)), 500, -1, True)
    with pytest.raises(ValueError, match='plan "clusters", want block, cluster, two-stage or any'):
        fake.new_selector(plan="clusters")


def test_fork(fake, fake_library):
    """A child has the driver's library but none of its devices; the selection on the CPU works there."""
    fake.start()
    x = torch.arange(100000.0)
    fake.check(x[:9], 2)
    child = os.fork()
    if child == 0:  # where torch's own threads are gone: only topk is called
        signal.alarm(30)
        os._exit(0 if aikf.topk(x, 1).indices.item() == 99999 else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_two_libraries(fake, tmp_path):
    """The driver is found by its path; another selector has another one."""
    fake.start()
    copy = tmp_path / "libcuda.so.1"
    shutil.copyfile(fake.path, copy)
    other = Fake(copy).start()
    other.check(rows("normal", 1, 300, torch.float32), 3)
    assert fake.calls("cuLaunchKernelEx") == 0 and other.calls("cuLaunchKernelEx") == 1
