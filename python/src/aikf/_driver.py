"""The NVIDIA driver: found at run time, and asked for what a launch needs.

Everything here runs once for each device. A call of topk goes from the extension to the driver.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
from typing import Callable, Dict, Iterator

from . import _kernels, _native

PATH = "libcuda.so.1"
OLDEST_VERSION = 12000  # the first that loads the machine code of a CUDA 12 compiler; it came with driver 525
OLDEST_CAPABILITY = (8, 0)

# Numbers of cuda.h.
NOT_FOUND = 500
MULTIPROCESSORS, CAPABILITY_MAJOR, CAPABILITY_MINOR = 16, 75, 76
NON_PORTABLE_CLUSTER = 14
CLUSTER_DIMENSION = 4
CAPTURE_RELAXED = 2


class LaunchAttribute(ctypes.Structure):
    _fields_ = [("id", ctypes.c_uint), ("pad", ctypes.c_uint), ("value", ctypes.c_uint * 16)]


class LaunchConfig(ctypes.Structure):
    _fields_ = [
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(LaunchAttribute)),
        ("attribute_count", ctypes.c_uint),
    ]


def version_name(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


class Driver:
    """The library. A call that fails raises RuntimeError with the call, the driver's name for the error and its text."""

    def __init__(self, path: str = PATH) -> None:
        try:
            self.library = ctypes.CDLL(path)
        except OSError as error:
            raise RuntimeError(f"aikf: the NVIDIA driver: {error}") from error
        version = ctypes.c_int()
        self.call("cuDriverGetVersion", ctypes.byref(version))
        if version.value < OLDEST_VERSION:
            raise RuntimeError(
                f"aikf: the NVIDIA driver supports CUDA {version_name(version.value)}, "
                f"want CUDA {version_name(OLDEST_VERSION)} (driver 525) or newer"
            )
        self.call("cuInit", ctypes.c_uint(0))

    def function(self, name: str) -> Callable[..., int]:
        try:
            return getattr(self.library, name)
        except AttributeError as error:
            raise RuntimeError(f"aikf: the NVIDIA driver has no {name}: {error}") from error

    def address(self, name: str) -> int:
        return ctypes.cast(self.function(name), ctypes.c_void_p).value or 0

    def call(self, name: str, *arguments: object) -> None:
        code = self.function(name)(*arguments)
        if code:
            raise self.error(name, code)

    def error(self, name: str, code: int) -> RuntimeError:
        """Return what is to be raised for a call that returned the code."""
        failed = RuntimeError(f"aikf: {name}: {self._text('Name', code)} ({code}): {self._text('String', code)}")
        failed.code = code  # type: ignore[attr-defined]
        return failed

    def _text(self, what: str, code: int) -> str:
        text = ctypes.c_char_p()
        getattr(self.library, f"cuGetError{what}")(ctypes.c_int(code), ctypes.byref(text))
        return text.value.decode() if text.value else "unknown error"

    def attribute(self, attribute: int, device: ctypes.c_int) -> int:
        value = ctypes.c_int()
        self.call("cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(attribute), device)
        return value.value

    def open(self, ordinal: int) -> _native.Device:
        """Load the kernels into the primary context of the device with that ordinal, which is torch's."""
        device = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(ordinal))
        capability = self.attribute(CAPABILITY_MAJOR, device), self.attribute(CAPABILITY_MINOR, device)
        if capability < OLDEST_CAPABILITY:
            raise RuntimeError(
                f"aikf: device {ordinal} has compute capability {capability[0]}.{capability[1]}, "
                f"want {OLDEST_CAPABILITY[0]}.{OLDEST_CAPABILITY[1]} or later"
            )
        # Held until the process ends, as torch holds it.
        context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        unloaded = _kernels.images(*capability)
        kernels: Dict[str, int] = {}
        loading = threading.Lock()

        def take(symbol: str) -> Dict[str, int]:
            for image in [i for i in unloaded if _kernels.may_hold(i, symbol)]:
                kernels.update(self._load(image, device))
                unloaded.remove(image)
            return kernels

        def load(symbol: str) -> Dict[str, int]:
            """Load the image that has the kernel, if there is one, and return all kernels that are loaded."""
            with loading, self._current(context):
                return take(symbol)

        with self._current(context):
            take("select_f32_block")
            clusters = self._cluster_blocks(kernels) if capability >= (9, 0) else 0
        return _native.Device(
            ordinal=ordinal,
            context=context.value,
            launch=self.address("cuLaunchKernelEx"),
            push=self.address("cuCtxPushCurrent_v2"),
            pop=self.address("cuCtxPopCurrent_v2"),
            current=self.address("cuCtxGetCurrent"),
            multiprocessors=self.attribute(MULTIPROCESSORS, device),
            cluster_blocks=clusters,
            kernels=kernels,
            load=load,
            error=self.error,
        )

    @contextlib.contextmanager
    def _current(self, context: ctypes.c_void_p) -> Iterator[None]:
        """Make the context the current one, for calls that are no part of what the thread captures."""
        self.call("cuCtxPushCurrent_v2", context)
        mode = ctypes.c_int(CAPTURE_RELAXED)
        self.call("cuThreadExchangeStreamCaptureMode", ctypes.byref(mode))
        try:
            yield
        finally:
            self.call("cuThreadExchangeStreamCaptureMode", ctypes.byref(mode))
            self.call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def _load(self, image: bytes, device: ctypes.c_int) -> Dict[str, int]:
        """Load the image, and the kernels of it that plans launch: one loaded by its first launch could end a capture."""
        library = ctypes.c_void_p()
        none, zero = ctypes.c_void_p(), ctypes.c_uint(0)
        self.call("cuLibraryLoadData", ctypes.byref(library), image, none, none, zero, none, none, zero)
        kernels = {}
        for symbol in _native.symbols():
            if not _kernels.may_hold(image, symbol):
                continue
            kernel, in_context = ctypes.c_void_p(), ctypes.c_void_p()
            try:
                self.call("cuLibraryGetKernel", ctypes.byref(kernel), library, symbol.encode())
            except RuntimeError as error:
                if getattr(error, "code", 0) == NOT_FOUND:
                    continue  # an image without clusters
                raise
            if symbol.endswith("_cluster"):
                # If this is refused, the driver says so when asked how many blocks fit.
                self.function("cuKernelSetAttribute")(ctypes.c_int(NON_PORTABLE_CLUSTER), ctypes.c_int(1), kernel, device)
            self.call("cuKernelGetFunction", ctypes.byref(in_context), kernel)
            kernels[symbol] = kernel.value
        return kernels

    def _cluster_blocks(self, kernels: Dict[str, int]) -> int:
        """Return the most blocks that a cluster can have, for every dtype."""
        most = 16
        for symbol in _native.symbols():
            if not symbol.startswith("select_") or not symbol.endswith("_cluster"):
                continue
            if symbol not in kernels:
                return 0
            while most > 1 and not self._active_clusters(kernels[symbol], most):
                most //= 2
        return most

    def _active_clusters(self, kernel: int, blocks: int) -> int:
        attribute = LaunchAttribute(id=CLUSTER_DIMENSION)
        attribute.value[:3] = [blocks, 1, 1]
        config = LaunchConfig(attributes=ctypes.pointer(attribute), attribute_count=1)
        config.grid[:] = [blocks, 1, 1]
        config.block[:] = [_native.block_threads, 1, 1]
        n = ctypes.c_int()
        function = self.function("cuOccupancyMaxActiveClusters")
        return 0 if function(ctypes.byref(n), ctypes.c_void_p(kernel), ctypes.byref(config)) else n.value


@functools.lru_cache(maxsize=None)
def driver() -> Driver:
    return Driver()


def open_device(ordinal: int) -> _native.Device:
    """Open the device with that ordinal of torch's."""
    return driver().open(ordinal)
