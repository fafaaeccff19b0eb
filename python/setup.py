"""Builds the package: the extension, and the kernels of ../cuda/kernels inside.

The version is that of the Go module: its newest tag, and the commit if there is more since.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py
from wheel.bdist_wheel import bdist_wheel

HERE = Path(__file__).resolve().parent
KERNELS = HERE.parent / "cuda" / "kernels"


def version() -> str:
    """Return what git describes, by the rules of Python's versions: v1.2.0-3-gabc is 1.2.0.post3+gabc."""
    described = subprocess.run(
        ["git", "describe", "--tags", "--always", "--match", "v[0-9]*"], cwd=HERE, capture_output=True, text=True
    ).stdout.strip()
    tagged = re.fullmatch(r"v(\d+\.\d+\.\d+)(?:-([a-z]+)\.?(\d+))?(?:-(\d+)-g([0-9a-f]+))?", described)
    if tagged is None:
        return f"0.0.0+g{described}" if re.fullmatch("[0-9a-f]+", described) else "0.0.0"
    release, stage, number, later, commit = tagged.groups()
    if stage:
        release += {"alpha": "a", "beta": "b", "rc": "rc"}[stage] + number
    return f"{release}.post{later}+g{commit}" if later else release


class BuildPy(build_py):
    def run(self):
        super().run()
        package = (HERE / "src" if self.editable_mode else Path(self.build_lib)) / "aikf"
        (package / "_version.py").write_text(f'__version__ = "{self.distribution.get_version()}"\n')
        kernels = package / "kernels"
        kernels.mkdir(parents=True, exist_ok=True)
        for path in [*KERNELS.glob("*.gz"), KERNELS / "manifest.json"]:
            shutil.copyfile(path, kernels / path.name)
        shutil.copyfile(HERE.parent / "LICENSE", package / "LICENSE")


class BDistWheel(bdist_wheel):
    def finalize_options(self):
        super().finalize_options()
        # Made with any C library, it needs no newer one than this: a test looks.
        self.plat_name_supplied = True
        self.plat_name = f"manylinux_2_17_{os.uname().machine}"


setup(
    version=version(),
    ext_modules=[
        Extension(
            "aikf._native",
            sources=[f"native/{name}.c" for name in ("module", "plan", "sample", "sampler", "select", "verify")],
            depends=[*map(str, (HERE / "native").glob("*.h")), str(KERNELS / "arguments.h")],
            include_dirs=[str(KERNELS)],
            define_macros=[("Py_LIMITED_API", "0x030A0000")],
            # Each operation of the law of a token is rounded once.
            extra_compile_args=[
                *("-std=c11", "-O3", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-fvisibility=hidden"),
                *("-ffp-contract=off", "-fno-math-errno"),
            ],
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
    cmdclass={"build_py": BuildPy, "bdist_wheel": BDistWheel},
)
