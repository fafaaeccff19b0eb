"""Launch plans: those of the Go package, which its own tests hold to these on many more shapes."""

import re

import pytest
from conftest import ROOT, missing

from aikf import _native, _torch

GOLDEN = ROOT / "cuda" / "testdata" / "plans.golden"
ARCHITECTURES = {"sm_80": (108, 0), "sm_86": (84, 0), "sm_89": (142, 0), "sm_90": (132, 16), "sm_100": (148, 16)}


def line_of(plan):
    """Return the plan as Go prints it."""
    if plan["name"] == "none":
        return "none: there are no results"
    text = "{name}, {groups} groups, {chunks} chunks of {chunk_size}, workspace {workspace_bytes} bytes:".format(**plan)
    for launch in plan["kernels"]:
        text += " {symbol}<<<{grid}, {block}>>>".format(**launch)
        if launch["cluster"] > 1:
            text += f" in clusters of {launch['cluster']}"
    return text


def test_golden_plans():
    if not GOLDEN.exists():
        missing("golden", f"no {GOLDEN}: not in a checkout")
    compared, shape = 0, None
    for line in GOLDEN.read_text().splitlines():
        head = re.fullmatch(r"(\w+), (\d+) x (\d+), k = (\d+), (\w+)", line)
        if head:
            multiprocessors, clusters = ARCHITECTURES[head[1]]
            shape = (int(head[2]), int(head[3]), int(head[4]), head[5], multiprocessors, clusters)
            assert line_of(_native.plan(*shape)) == next_line(line), line
            continue
        name = line.split(",")[0].split(":")[0].strip()
        if name != "none":
            assert line_of(_native.plan(*shape, name=name)) == line.strip()
            compared += 1
    assert compared > 100


def next_line(line):
    """Return the first plan below a shape: the one that is chosen."""
    lines = GOLDEN.read_text().splitlines()
    return lines[lines.index(line) + 1].strip()


def test_shapes_that_are_none():
    for rows, vocab, k in ((-1, 5, 2), (1, 5, 6), (1, 5, -1), (1, 1 << 31, 1), (1 << 62, 9, 9)):
        assert _native.plan(rows, vocab, k, "float32", 132, 16) is None
    assert _native.plan(1, 9, 2, "float64", 132, 16) is None
    assert _native.plan(1, 9, 2, "float32", 132, 16, name="fastest") is None


def test_target_candidates():
    default = _native.plan(1, 50304, 50, "bfloat16", 132, 16)
    small = _native.plan(1, 50304, 50, "bfloat16", 132, 16, target_candidates=100)
    assert small["groups"] < default["groups"]
    assert _torch.target_candidates(None) == _torch.target_candidates("") == 0
    assert _torch.target_candidates("1048576") == 1 << 20
    for value in ("0", "-1", "1048577", "many", "1e3", " 5", "99999999999999999999"):
        with pytest.raises(ValueError, match="AIKF_TARGET_STAGE2_CANDIDATES = .*, want an integer from 1 to 1048576"):
            _torch.target_candidates(value)


def test_variable(isolated):
    program = "import aikf, torch; print(aikf.topk(torch.arange(9.), 2).indices.tolist())"
    assert isolated(program, AIKF_TARGET_STAGE2_CANDIDATES="300") == "[8, 7]\n"
    program = """
try:
    import aikf
except ValueError as error:
    print(error)
"""
    assert "AIKF_TARGET_STAGE2_CANDIDATES = 'few'" in isolated(program, AIKF_TARGET_STAGE2_CANDIDATES="few")
