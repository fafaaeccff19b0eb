"""The package: what the wheel holds, what it needs, and how it says what is missing."""

import gc
import gzip
import hashlib
import inspect
import json
import re
import subprocess
import sys
import zipfile
from importlib import metadata, resources

import pytest
import torch
from conftest import ROOT, missing

import aikf
from aikf import _kernels, _native, _torch


@pytest.fixture
def wheel():
    """The wheel in dist/."""
    wheels = sorted((ROOT / "dist").glob("aikf-*.whl"))
    if len(wheels) != 1:
        missing("wheel", f"{len(wheels)} wheels in {ROOT / 'dist'}, want the one of make wheel")
    return wheels[0]


def test_wheel_serves_every_python(wheel):
    assert re.search(r"-cp310-abi3-manylinux_2_17_\w+\.whl$", wheel.name), wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        described = archive.read(next(n for n in names if n.endswith("METADATA"))).decode()
    assert "Provides-Extra: torch" in described and 'Requires-Dist: torch>=2.4; extra == "torch"' in described
    for name in ("aikf/py.typed", "aikf/_native.pyi", "aikf/_native.abi3.so", "aikf/kernels/manifest.json", "aikf/LICENSE"):
        assert name in names
    assert wheel.stat().st_size < 8 << 20


def test_extension_needs_an_old_c_library_only(wheel, tmp_path):
    """What the tag of the wheel promises: glibc 2.17 or later, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        extension = archive.extract("aikf/_native.abi3.so", tmp_path)
    try:
        table = subprocess.run(["readelf", "-dVsW", extension], check=True, capture_output=True, text=True).stdout
    except FileNotFoundError:
        missing("readelf", "no readelf")
    assert set(re.findall(r"NEEDED.*\[(.*)\]", table)) <= {"libc.so.6"}
    versions = {tuple(map(int, v.split("."))) for v in re.findall(r"GLIBC_([0-9.]+)", table)}
    assert versions and max(versions) <= (2, 17), versions
    symbols = set(re.findall(r"UND (Py\w+|_Py\w+)", table))
    stable = {"_Py_Dealloc", "_Py_NoneStruct", "_Py_TrueStruct", "_Py_FalseStruct"}
    assert symbols and {s for s in symbols if s.startswith("_Py")} <= stable


def test_kernels_are_those_of_the_manifest():
    folder = resources.files("aikf").joinpath("kernels")
    manifest = json.loads(folder.joinpath("manifest.json").read_text())
    assert len(manifest["artefacts"]) == 3
    for artefact in manifest["artefacts"]:
        image = gzip.decompress(folder.joinpath(artefact["file"]).read_bytes())
        assert hashlib.sha256(image).hexdigest() == artefact["sha256"]
        missing_kernels = set(_native.symbols()) - {k["symbol"] for k in artefact["kernels"]}
        assert all(artefact["target"] == "sm_80" and "cluster" in s for s in missing_kernels)


def test_image_for_each_capability():
    assert _kernels.image(8, 0) == _kernels.image(8, 9)
    assert _kernels.image(8, 0)[:4] == _kernels.image(9, 0)[:4] == b"\x7fELF" and _kernels.image(8, 0) != _kernels.image(9, 0)
    for later in ((9, 1), (10, 0), (12, 0)):
        assert b".version" in _kernels.image(*later) and _kernels.image(*later).endswith(b"\0")


def test_version():
    assert aikf.__version__ == metadata.version("aikf")
    assert re.match(r"\d+\.\d+\.\d+", aikf.__version__)


@pytest.mark.parametrize("version", ["2.3.1", "1.13.1", "2.3.0+cu121", "unknown"])
def test_torch_that_is_too_old(version):
    with pytest.raises(RuntimeError, match=re.escape(f"aikf needs torch 2.4 or later, and this is torch {version}")):
        _torch.check_version(version)


@pytest.mark.parametrize("version", ["2.4.0", "2.11.0+cu130", "3.0.0a0+git123"])
def test_torch_that_will_do(version):
    assert _torch.check_version(version) >= (2, 4)


def test_without_torch(isolated):
    program = """
import sys
sys.modules["torch"] = None
try:
    import aikf
except ImportError as error:
    print(error)
"""
    assert "aikf needs torch 2.4 or later, which is not installed" in isolated(program)


def test_import_is_light(isolated):
    """Importing the package loads neither the compiler of torch nor the driver."""
    program = "import torch, sys; before = set(sys.modules); import aikf; print([m for m in set(sys.modules) - before if 'aikf' not in m])"
    assert "torch._dynamo" not in isolated(program) and "torch._inductor" not in isolated(program)
    program = "import aikf; print('libcuda' in open('/proc/self/maps').read(), aikf._driver.driver.cache_info().currsize)"
    assert isolated(program).endswith("0\n")


def test_signature_is_that_of_torch():
    parameters = inspect.signature(aikf.topk).parameters
    assert list(parameters) == ["x", "k", "dim", "largest", "sorted", "out"]
    assert [p.default for p in parameters.values()][2:] == [-1, True, True, None]
    assert parameters["out"].kind is inspect.Parameter.KEYWORD_ONLY
    for word in ("Raises", "TypeError", "RuntimeError", "IndexError", "int64", "stable"):
        assert word in aikf.topk.__doc__


def test_wrong_arguments_of_the_extension():
    for call in (_torch._short, _torch.select, _torch._short_into):
        with pytest.raises(TypeError, match="arguments"):
            call(torch.zeros(3))
    with pytest.raises(TypeError):
        _native.Selector()
    with pytest.raises(TypeError):
        _native.Device(ordinal=0)
    with pytest.raises(TypeError, match="a Selector is made once"):
        _torch._selector.__init__()


def test_no_references_are_lost():
    """A call leaves nothing behind but its results, and an error nothing at all."""
    x, k = torch.randn(3, 40), 1234567  # a number that nobody else holds
    values, indices = torch.empty(3, 4), torch.empty(3, 4, dtype=torch.int64)
    calls = [
        lambda: aikf.topk(x, 4),
        lambda: aikf.topk(x, 2, 0),
        lambda: aikf.topk(x[:, ::2], 4),
        lambda: aikf.topk(x, 4, out=(values, indices)),
        lambda: pytest.raises(RuntimeError, aikf.topk, x, k),
        lambda: pytest.raises(TypeError, aikf.topk, x, "4"),
        lambda: pytest.raises(TypeError, aikf.topk, values.double(), 4),
        lambda: pytest.raises(IndexError, aikf.topk, x, 4, 7),
    ]
    watched = [x, values, indices, k, x.dtype, torch.int64, x.device, torch.Tensor, torch.return_types.topk, torch.empty_strided, None, True]
    watched = [thing for thing in watched if sys.getrefcount(thing) < 1 << 29]  # some never end
    for call in calls:
        call()
        gc.collect()
        before = [sys.getrefcount(thing) for thing in watched]
        for _ in range(1000):
            call()
        gc.collect()
        lost = [sys.getrefcount(thing) - was for thing, was in zip(watched, before)]
        assert all(abs(n) < 100 for n in lost), lost


def test_example():
    """The program of the README's PyTorch section."""
    program = ROOT / "examples" / "pytorch" / "decode.py"
    done = subprocess.run([sys.executable, "-W", "ignore", program, "cpu"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "rows with a tie across the 50th place: 4\nas a stable sort has it: True\ntokens are among the largest: True\n"
    )
