"""Makes torch from PyPI importable without the libraries of CUDA, for tests on a CPU.

torch is linked with libraries (cuBLAS, cuDNN, NCCL and others) that pip would bring with it, gigabytes that are never
called where there is no GPU. For each that is missing this writes a library with the same name, symbols and versions, in
which every function ends the process. It needs gcc, and the nm and readelf that come with it.

    pip install --no-deps -r requirements-torch.txt && python standins.py
"""

import collections
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path


def output(*command: object) -> str:
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout


def main() -> None:
    torch = Path(importlib.util.find_spec("torch").origin).parent / "lib"
    needed, named = set(), {}  # libraries, and the library of each version of symbols
    symbols = collections.defaultdict(set)  # by version, "" for those without
    for library in torch.glob("*.so*"):
        dynamic = output("readelf", "-dVW", library)
        needed.update(re.findall(r"NEEDED.*\[(.*)\]", dynamic))
        of = ""
        for file, version in re.findall(r"File: (\S+)|  Name: (\S+)", dynamic):
            of = file or of
            if version:
                named[version] = of
        for line in output("nm", "-D", "--undefined-only", library).splitlines():
            symbol, _, version = line.split()[-1].partition("@")
            symbols[version].add(symbol)
    runtimes = sorted(torch.parent.parent.glob("nvidia/*/lib/libcudart.so.*"))
    if not runtimes:
        sys.exit("standins: no CUDA runtime beside torch: this torch needs none, or it is not that of requirements-torch.txt")
    folder = runtimes[0].parent  # where torch looks
    for name in sorted(needed):
        if not re.match(r"lib(cu|nccl|nv)", name) or name == "libcuda.so.1":
            continue
        if any((place / name).exists() for place in (torch, folder)):
            continue
        write(folder / name, {v: symbols[v] for v, library in named.items() if library == name}, symbols[""])
        print(f"{name}: a stand-in, in {folder}")


def write(library: Path, versions: dict, unversioned: set) -> None:
    """Write a library with the symbols of each version, and those of no version that begin with its name."""
    begin = re.match(r"lib([A-Za-z]+)", library.name)[1]
    every = set().union(*versions.values()) | {s for s in unversioned if s.startswith(begin)}
    with tempfile.TemporaryDirectory() as folder:
        source, script = Path(folder, "standin.s"), Path(folder, "versions")
        labels = "".join(f".globl {s}\n.type {s}, %function\n{s}:\n" for s in sorted(every))
        source.write_text(f'{labels} .word 0\n.section .note.GNU-stack,"",%progbits\n')
        script.write_text("".join(f"{v} {{ {''.join(f'{s}; ' for s in sorted(of))}}};\n" for v, of in versions.items()))
        flags = [f"-Wl,--version-script={script}"] if versions else []
        output("gcc", "-shared", "-nostdlib", f"-Wl,-soname,{library.name}", *flags, "-o", library, source)


if __name__ == "__main__":
    main()
