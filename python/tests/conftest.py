"""What tests need: a device to run on, and the driver library that is none.

AIKF_TEST_REQUIRE, a list with commas, names what must be tested: a test that would be skipped for want of it fails.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
REQUIRED = [name for name in os.environ.get("AIKF_TEST_REQUIRE", "").split(",") if name]


def missing(what: str, reason: str) -> None:
    """Skip the test, or fail it if AIKF_TEST_REQUIRE names what."""
    if what in REQUIRED:
        pytest.fail(f"{reason}, but AIKF_TEST_REQUIRE asks for {what}")
    pytest.skip(reason)


def pytest_report_header(config):
    cuda = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    return f"torch {torch.__version__}, {cuda}, required: {', '.join(REQUIRED) or 'nothing'}"


@pytest.fixture
def cuda():
    """The first GPU."""
    if not torch.cuda.is_available():
        missing("cuda", "torch sees no GPU")
    return torch.device("cuda", 0)


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    """The CPU, then the first GPU."""
    return torch.device("cpu") if request.param == "cpu" else request.getfixturevalue("cuda")


@pytest.fixture(scope="session")
def fake_library():
    """The path of a driver over host memory, whose kernels are those of cuda/kernels, compiled for the CPU."""
    path = Path(os.environ.get("AIKF_FAKE_DRIVER", ROOT / ".build" / "fakedriver.so"))
    if not path.exists():
        missing("fakecuda", f"no {path}: make python-fakedriver builds it")
    return path


@pytest.fixture
def isolated():
    """A function that runs a program in a Python of its own and returns what it prints."""

    def run(program: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, env={**os.environ, **environment}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
