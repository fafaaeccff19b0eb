"""The package: what the wheel holds, what it needs, and how it says what is missing."""

import gc
import gzip
import hashlib
import inspect
import json
import os
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
    artefacts = [a for a in manifest["artefacts"] if "/" not in a["file"]]  # without the instrumented ones
    assert len(artefacts) == 3
    for artefact in artefacts:
        image = gzip.decompress(folder.joinpath(artefact["file"]).read_bytes())
        assert hashlib.sha256(image).hexdigest() == artefact["sha256"]
        missing_kernels = set(_native.symbols()) - {k["symbol"] for k in artefact["kernels"]}
        assert all(artefact["target"] == "sm_80" and "cluster" in s for s in missing_kernels)


def test_images_for_each_capability():
    (ampere,), (hopper,) = _kernels.images(8, 0), _kernels.images(9, 0)
    assert _kernels.images(8, 9) == [ampere] and ampere[:4] == hopper[:4] == b"\x7fELF" and ampere != hopper
    for later in ((9, 1), (10, 0), (12, 0)):
        images = _kernels.images(*later)
        assert all(b".version" in image and image.find(b"\0") == len(image) - 1 for image in images)
        assert all(sum(_kernels.may_hold(image, symbol) for image in images) == 1 for symbol in _native.symbols())


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
    values, indices = torch.empty(3, 4), torch.zeros(3, 4, dtype=torch.int64)
    generator = torch.Generator()
    calls = [
        lambda: aikf.topk(x, 4),
        lambda: aikf.topk(x, 2, 0),
        lambda: aikf.topk(x[:, ::2], 4),
        lambda: aikf.topk(x, 4, out=(values, indices)),
        lambda: pytest.raises(RuntimeError, aikf.topk, x, k),
        lambda: pytest.raises(TypeError, aikf.topk, x, "4"),
        lambda: pytest.raises(TypeError, aikf.topk, values.double(), 4),
        lambda: pytest.raises(IndexError, aikf.topk, x, 4, 7),
        lambda: aikf.sample(x, top_k=4, seed=3, logprobs=2),
        lambda: aikf.sample_logits(x, top_k=4, generator=generator, num_samples=2),
        lambda: aikf.nanochat.sample_next_token(x, generator, 0.5, 4),
        lambda: aikf.nanochat.sample_next_token(x[:, ::2], None),
        lambda: aikf.speculative_verify(x[None], indices[:1, :2], draft_logits=x[None, :2], seed=3),
        lambda: pytest.raises(ValueError, aikf.sample_logits, x, top_k=-k),
        lambda: pytest.raises(ValueError, aikf.sample, x, top_p=3.5, seed=1),
        lambda: pytest.raises(TypeError, aikf.nanochat.sample_next_token, x, "generator"),
    ]
    watched = [generator, x, values, indices, k, x.dtype, torch.int64, x.device, torch.Tensor, torch.return_types.topk, torch.empty_strided, None, True]
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


def output_of(*command):
    """Return what a program prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-W", "ignore", *command], capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


EXAMPLES = ROOT / "examples" / "pytorch"


def test_examples(device):
    """The programs of the README's PyTorch section."""
    assert output_of(EXAMPLES / "decode.py", device.type) == (
        "rows with a tie across the 50th place: 4\nas a stable sort has it: True\ntokens are among the largest: True\n"
    )
    assert output_of(EXAMPLES / "sample.py", device.type) == (
        "status: ['OK', 'OK', 'OK']\ngreedy row has rank: 1\na row alone gives the same token: True\n"
        "samples of one row differ: True\nfour steps, as on the CPU: True\n"
    )


def test_decode_benchmark(tmp_path, device):
    """The decode loop, with a tiny model."""
    record = tmp_path / "record.json"
    model = "--vocab 300 --batch 1 2 --steps 6 --layers 1 --width 32 --heads 2 --iters 2 --top-k 20".split()
    printed = output_of(ROOT / "python" / "bench" / "decode.py", "--device", device.type, *model, "--out", record)
    assert printed.count("tokens a second") == 2
    results = json.loads(record.read_text())["results"]
    modes = ("eager", "graph") if device.type == "cuda" else ("eager",)
    for batch, result in zip((1, 2), results):
        assert result["batch"] == batch and result["vocab"] == 300 and result["right"]
        rates = result["tokens_per_second"]
        assert set(rates) == {f"{mode} {sampling}" for mode in modes for sampling in ("none", "torch", "aikf")}
        assert all(rate > 0 for rate in rates.values())


def test_signatures_of_sampling():
    """What the documentation says of each parameter, and what is exported."""
    for call in (aikf.sample, aikf.sample_logits, aikf.speculative_verify, aikf.apply_bitmask):
        parameters = inspect.signature(call).parameters
        for name, parameter in parameters.items():
            assert name in call.__doc__, f"{call.__name__} says nothing of {name}"
            assert name in ("logits", "bitmask", "drafted") or parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert "Raises" in call.__doc__
    assert list(inspect.signature(aikf.nanochat.sample_next_token).parameters) == ["logits", "rng", "temperature", "top_k"]
    assert list(inspect.signature(aikf.sample_logits).parameters) == [
        "logits", "top_k", "temperature", "generator", "num_samples", "replacement", "backend",
    ]  # fmt: skip
    assert all(hasattr(aikf, name) for name in aikf.__all__)
    assert {s.value: s.name for s in aikf.Status} == {0: "OK", 1: "NAN", 2: "EMPTY", 3: "EXHAUSTED", 4: "BAD_PARAMETERS"}


def test_wrong_arguments_of_the_sampler():
    from aikf import _sample

    sampler = _sample._sampler
    for call in (sampler.next_token, sampler.logits, sampler.sample, sampler.verify, sampler.numbers):
        with pytest.raises(TypeError, match="arguments"):
            call(torch.zeros(3))
    x, none = torch.zeros(1, 3), (None,)
    with pytest.raises(TypeError, match="want a tuple of 13 tensors"):
        sampler.sample(x, none, none, none, ())
    with pytest.raises(TypeError):
        sampler.sample(x, none * 13, none * 5, none * 9, (1,))
    with pytest.raises(TypeError):
        _native.Sampler()
    with pytest.raises(TypeError, match="a Sampler takes a Selector"):
        _native.Sampler(selector=3, capturing=bool, generator=bool, draw_seed=bool, dispatch=bool)
    with pytest.raises(TypeError, match="a Sampler is made once"):
        sampler.__init__(selector=_torch._selector, capturing=bool, generator=bool, draw_seed=bool, dispatch=bool)
