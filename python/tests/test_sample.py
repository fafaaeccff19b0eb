"""Sampling: the golden tokens of the Go package, tensors for parameters, generators, errors, modes."""

import base64
import json
import math
import struct
from pathlib import Path

import pytest
import torch
from oracle import DTYPES, rows

import aikf
from aikf import Status, nanochat

GOLDEN = [json.loads(line) for line in (Path(__file__).parent / "tokens.jsonl").read_text().splitlines()]
NAMES = [
    "temperature", "top_k", "top_p", "min_p", "typical_p", "top_n_sigma", "xtc_probability", "xtc_threshold", "repetition_penalty",
    "frequency_penalty", "presence_penalty", "seed", "position",
]  # fmt: skip
X = rows("normal", 3, 97, torch.float32)


def floats(encoded, rows_, vocab, dtype):
    bits = base64.b64decode(encoded)
    values = struct.unpack(f"<{len(bits) // 4}I", bits)
    wide = torch.tensor([v - (1 << 32) if v >> 31 else v for v in values], dtype=torch.int32).view(torch.float32)
    return wide.view(rows_, vocab).to(dtype)


def arguments_of(case, device):
    """Return what sample is given for a case of the Go package."""
    params = dict(case["params"])
    given = {name: params.pop(name) for name in (*NAMES, "softcap", "replacement") if name in params}
    if "logit_bias" in params:
        given["logit_bias"] = {int(i): float(v) if v != "-Infinity" else -math.inf for i, v in params.pop("logit_bias").items()}
    if "grammar_bitmask" in params:
        given["bitmask"] = torch.tensor(params.pop("grammar_bitmask"), dtype=torch.int32, device=device)
    counts = dict.fromkeys(case.get("prompt", []), 0)
    for i in case.get("history", []):
        counts[i] = counts.get(i, 0) + 1
    lists = torch.tensor([list(counts), list(counts.values())], dtype=torch.int64, device=device)
    assert not params, "a parameter that the test does not know"
    return {
        **given, "draws": case["draws"], "preset": case["preset"], "token_counts": (lists[0], lists[1]), "logprobs": min(case["top"], case["vocab"]),
        "processed_logprobs": case["processed"],
    }  # fmt: skip


def near(got, want):
    """Assert that logprobs are as near as the contract says, and of the same rows."""
    assert torch.equal(got == -math.inf, want == -math.inf) and torch.equal(got.isnan(), want.isnan())
    finite = want.isfinite()
    assert torch.equal(got[~finite].nan_to_num(), want[~finite].nan_to_num())
    assert ((got - want)[finite].abs() <= 2e-6 * want[finite].abs().clamp(min=1)).all()


def equal(got, want):
    """Assert that logprobs are equal to the bit."""
    assert torch.equal(got.nan_to_num(7.0, math.inf, -math.inf), want.nan_to_num(7.0, math.inf, -math.inf))


def holds(case, result, compare=equal):
    """Assert that a result is the answer of a case."""
    assert result.tokens.dtype == torch.int64 and result.status.dtype == torch.uint8
    assert result.tokens.flatten().tolist() == case["tokens"]
    assert result.status.tolist() == case["status"]
    want = torch.tensor([b - (1 << 32) if b >> 31 else b for b in case["logprobs"]], dtype=torch.int32).view(torch.float32)
    compare(result.logprobs.flatten().cpu(), want)
    assert result.ranks.flatten().tolist() == case["ranks"]
    first = result.tokens.view(case["rows"], -1)[:, 0].cpu() >= 0
    if result.top_ids is not None:
        ids = result.top_ids.cpu()[first].flatten().tolist()
        assert [i for i in ids if i >= 0] == (case["top_ids"] or [])


def test_goldens_cover_what_they_should():
    seen = set()
    for case in GOLDEN:
        seen |= set(case["params"]) | {case["preset"], case["dtype"], f"draws {min(case['draws'], 2)}", f"processed {case['processed']}"}
        seen |= {f"status {s}" for s in case["status"]}
    want = {*NAMES, "softcap", "replacement", "logit_bias", "grammar_bitmask", "vllm", "nanochat", "float32", "float16", "bfloat16"}
    assert want | {"draws 1", "draws 2", "processed True", "processed False", *(f"status {s}" for s in range(4))} <= seen


@pytest.mark.parametrize("number", range(len(GOLDEN)))
def test_golden_tokens(number, device):
    case = GOLDEN[number]
    x = floats(case["logits"], case["rows"], case["vocab"], getattr(torch, case["dtype"])).to(device)
    before = x.clone()
    given = arguments_of(case, device)

    def check():
        holds(case, aikf.sample(x, **given), near if device.type == "cuda" else equal)

    check()
    assert torch.equal(x.view(torch.uint8), before.view(torch.uint8)), "logits were written to"
    # Every parameter as a tensor. A seed for each row says where its draws begin. Penalties that are tensors edit a row even
    # where no token is counted: nobody looks at them before the launch.
    n = case["rows"]
    for name in NAMES:
        if name in given:
            value = given[name] - (1 << 64) if name in ("seed", "position") and given[name] >> 63 else given[name]
            given[name] = torch.tensor(value, device=device)
    check()
    given = {name: value.expand(n) if name in NAMES and name != "seed" else value for name, value in given.items()}
    check()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_do_not_matter(dtype, device):
    """A row's tokens are the same alone, in any batch, at any place, and from any strides."""
    x = rows("normal", 7, 300, dtype).to(device)
    seed, position = torch.arange(7, device=device) * 77, torch.arange(7, device=device)
    temperature = torch.linspace(0, 2, 7, device=device)
    kwargs = lambda i: dict(seed=seed[i], position=position[i], temperature=temperature[i], top_k=40, top_p=0.9)  # noqa: E731
    whole = aikf.sample(x, **kwargs(slice(None))).tokens
    for i in range(7):
        assert aikf.sample(x[i : i + 1], **kwargs(slice(i, i + 1))).tokens.tolist() == [whole[i].item()]
    order = torch.tensor([3, 1, 6, 0, 5, 2, 4], device=device)
    assert torch.equal(aikf.sample(x[order], **kwargs(order)).tokens, whole[order])
    wide = torch.zeros(7, 700, dtype=dtype, device=device)
    for view in (wide[:, 1:301], wide[:, :600:2], wide.t()[:300].t()):
        view.copy_(x)
        assert torch.equal(aikf.sample(view, **kwargs(slice(None))).tokens, whole)


def test_shapes(device):
    x = rows("normal", 6, 50, torch.float32).view(2, 3, 50).to(device)
    flat = aikf.sample(x.view(6, 50), seed=1, draws=4, logprobs=2, kept=True)
    deep = aikf.sample(x, seed=1, draws=4, logprobs=2, kept=True)
    assert deep.tokens.shape == deep.logprobs.shape == deep.ranks.shape == (2, 3, 4)
    assert deep.status.shape == (2, 3) and deep.top_ids.shape == deep.top_logprobs.shape == (2, 3, 2)
    for a, b in zip(flat, deep):
        assert torch.equal(a.flatten(), b.flatten())
    one = aikf.sample(x[0, 0], seed=1)
    assert one.tokens.shape == one.status.shape == () and one[2:] == (None,) * 7
    assert aikf.sample(x[0, 0], seed=1, draws=2).tokens.shape == (2,)
    assert aikf.sample(x[:0], seed=1, draws=2).tokens.shape == (0, 3, 2)
    assert aikf.sample(x, seed=1, logprobs=0).top_ids is None


def test_one_seed_gives_equal_rows_other_tokens(device):
    x = torch.zeros(1, 5000, device=device).expand(64, -1)
    shared = aikf.sample(x, seed=3).tokens
    assert len(set(shared.tolist())) > 60
    # Row i has draw i: that of row 0 with as many draws.
    assert torch.equal(shared, aikf.sample(x[0], seed=3, draws=64).tokens)
    own = aikf.sample(x, seed=torch.full((64,), 3, device=device)).tokens
    assert (own == own[0]).all()
    assert torch.equal(aikf.sample(x[:1], seed=3, first_draw=5).tokens, shared[5:6])


def test_tokens_follow_the_law(device):
    """Frequencies of 200,000 draws, within five deviations."""
    n, x = 200000, torch.tensor([2.0, 1.0, 0.0, -1.0, -math.inf, 0.5], device=device)
    tokens = aikf.sample(x, seed=11, draws=n, temperature=0.7).tokens
    counts = torch.bincount(tokens, minlength=6).double().cpu()
    p = (x.double() / 0.7).softmax(-1).cpu()
    assert ((counts - n * p).abs() <= 5 * (n * p * (1 - p)).sqrt()).all() and counts[4] == 0


def test_statuses(device):
    x = X[:1].expand(5, -1).clone().to(device)
    x[1, 5] = math.nan
    x[2] = -math.inf
    temperature = torch.tensor([1.0, 1, 1, -1, math.nan], device=device)
    result = aikf.sample(x, seed=1, temperature=temperature, invalid_token=0, logprobs=1)
    assert [Status(s) for s in result.status.tolist()] == [Status.OK, Status.NAN, Status.EMPTY, Status.BAD_PARAMETERS, Status.BAD_PARAMETERS]
    assert result.tokens[1:].tolist() == [0] * 4 and result.tokens[0] == aikf.sample(x[:1], seed=1).tokens[0]
    assert (result.logprobs[1:] == -math.inf).all() and result.ranks[1:].tolist() == [0] * 4
    assert (result.top_logprobs[1:] == -math.inf).all() and (result.top_ids[1:] == 0).all()
    short = aikf.sample(x[:1], seed=1, top_k=3, draws=5, replacement=False)
    assert short.status.tolist() == [Status.EXHAUSTED] and sorted(short.tokens[0].tolist())[:2] == [-1, -1]
    assert len(set(short.tokens[0, :3].tolist())) == 3 and set(short.tokens[0, :3].tolist()) == set(X[0].topk(3).indices.tolist())
    for name in NAMES[2:11]:
        bad = aikf.sample(x[:2], seed=1, **{name: torch.tensor([math.nan, 0.5], device=device)}, token_counts=(torch.zeros(0, device=device).long(),) * 2)
        assert bad.status.tolist()[0] == Status.BAD_PARAMETERS, name


def test_top_k_of_any_integer(device):
    x = X.to(device)
    for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        each = aikf.sample(x, seed=1, top_k=torch.tensor([1, 1, 0], device=device).to(dtype)).tokens
        assert torch.equal(each[:2], x.argmax(-1)[:2]) and each[2] == aikf.sample(x, seed=1, top_k=0).tokens[2]


def test_edits(device):
    x = X.to(device)
    words = torch.zeros(3, 4, dtype=torch.int32, device=device)
    words[:, 1] = 1 << 5  # id 37 alone
    assert aikf.sample(x, seed=1, bitmask=words).tokens.tolist() == [37] * 3
    assert aikf.sample(x, seed=1, bitmask=words[0]).tokens.tolist() == [37] * 3
    assert aikf.sample(x, seed=1, temperature=0, bitmask=words[:, :1]).tokens.tolist() == (x[:, 32:].argmax(-1) + 32).tolist()
    assert aikf.sample(x, seed=1, logit_bias={8: 90.0}).tokens.tolist() == [8] * 3
    ids = torch.tensor([[1, -1], [2, 99], [3, 4]], device=device)
    biases = torch.tensor([[90.0, 0], [90, 0], [90, -90]], device=device)
    assert aikf.sample(x, seed=1, logit_bias=(ids, biases)).tokens.tolist() == [1, 2, 3]
    best = x.argmax(-1)
    counts = torch.ones_like(best)
    for beyond in (2**32, -(2**32)):  # ids that 32 bits cannot hold
        far = (best + beyond)[:, None]
        assert torch.equal(aikf.sample(x, seed=1, temperature=0, logit_bias=(far, far * 0.0 - 99)).tokens, best)
        assert torch.equal(aikf.sample(x, seed=1, temperature=0, presence_penalty=99.0, token_counts=(far, counts[:, None])).tokens, best)
    second = aikf.sample(x, seed=1, temperature=0, presence_penalty=99.0, token_counts=(best[:, None], counts[:, None])).tokens
    assert torch.equal(second, x.topk(2).indices[:, 1])
    many = aikf.sample(x, seed=1, temperature=0, frequency_penalty=torch.tensor([0.0, 99, 99], device=device),
                       token_counts=(best[:, None].int(), (counts * 0 + 2)[:, None].int()))  # fmt: skip
    assert many.tokens.tolist() == [best[0].item(), *second.tolist()[1:]]


def test_count_tokens(device):
    random = torch.Generator().manual_seed(4)
    for n, m in ((0, 0), (1, 0), (0, 3), (9, 0), (12, 7)):
        output, prompt = (torch.randint(-1, 6, (5, size), generator=random).to(device) for size in (n, m))
        for ids, counts, before in ((*aikf.count_tokens(output), None), (*aikf.count_tokens(output, prompt), prompt)):
            assert ids.dtype == counts.dtype == torch.int32
            for row in range(5):
                got = {i: c for i, c in zip(ids[row].tolist(), counts[row].tolist()) if i >= 0}
                generated = output[row].tolist()
                seen = set(generated) | set([] if before is None else before[row].tolist())
                assert got == {i: generated.count(i) for i in seen if i >= 0}
    beyond = torch.tensor([2**32 + 5, 2**31], device=device)
    for dtype in (torch.int64, torch.int32, torch.int16, torch.uint8):
        few = torch.tensor([5, 3, 5], dtype=dtype, device=device)
        assert [x.tolist() for x in aikf.count_tokens(few)] == [[3, 5, -1], [1, 2, 2]]
        assert aikf.count_tokens(few[:1], beyond)[0].tolist() == [5, -1, -1]
    x = X.to(device)
    output = x.topk(4).indices[:, [0, 1, 0, 2]]
    tokens = aikf.sample(x, temperature=0, seed=1, presence_penalty=99.0, token_counts=aikf.count_tokens(output)).tokens
    assert torch.equal(tokens, x.topk(4).indices[:, 3])


def test_kept(device):
    x = X.to(device)
    result = aikf.sample(x, top_k=9, top_p=0.7, seed=1, kept=True)
    assert result.kept_ids.shape == result.kept_probabilities.shape == (3, 9) and result.kept_count.shape == (3,)
    order = torch.sort(x, descending=True, stable=True)
    for i, n in enumerate(result.kept_count.tolist()):
        p = order.values[i, :9].double().softmax(-1).cpu()
        assert n == int((p.cumsum(-1) < 0.7).sum()) + 1
        assert result.kept_ids[i].tolist() == order.indices[i, :n].tolist() + [-1] * (9 - n)
        assert torch.allclose(result.kept_probabilities[i, :n].cpu().double(), p[:n] / p[:n].sum(), atol=1e-6)
        assert (result.kept_probabilities[i, n:] == 0).all() and result.tokens[i] in result.kept_ids[i, :n]
    per_row = aikf.sample(x, top_k=torch.tensor([1, 5, 0], device=device), most_top_k=6, seed=1, kept=True)
    assert per_row.kept_ids.shape == (3, 6) and per_row.kept_count.tolist() == [1, 5, -1]
    assert aikf.sample(x, temperature=0, seed=1, kept=True).kept_count.tolist() == [1] * 3
    assert aikf.sample(x * math.nan, top_k=4, seed=1, kept=True).kept_count.tolist() == [0] * 3
    wide = torch.zeros(1, 5000, dtype=torch.bfloat16, device=device)
    assert aikf.sample(wide, seed=1, kept=True).kept_ids.shape == (1, 1024)
    assert aikf.sample(wide.float(), seed=1, kept=True).kept_count.tolist() == [-1]


def test_greedy(device):
    for dtype in DTYPES:
        x = rows("two values", 4, 999, dtype).to(device)
        want = torch.sort(x, descending=True, stable=True).indices[:, 0]
        assert torch.equal(aikf.sample(x, temperature=0, seed=1).tokens, want)
        assert torch.equal(aikf.sample_logits(x, temperature=0.0), want)
        assert torch.equal(nanochat.sample_next_token(x, None, 0.0), want[:, None])


def test_generator_of_the_device(device):
    x = rows("normal", 4, 300, torch.bfloat16).to(device)
    generator = torch.Generator(device).manual_seed(5)
    state = generator.get_state()
    first, second = (nanochat.sample_next_token(x, generator, 0.9, 50) for _ in range(2))
    assert first.shape == (4, 1) and first.dtype == torch.int64 and not torch.equal(first, second)
    generator.set_state(state)
    assert torch.equal(nanochat.sample_next_token(x, generator, 0.9, 50), first)
    for call in (
        lambda: aikf.sample_logits(x, top_k=50, temperature=0.9, generator=generator).unsqueeze(1),
        lambda: aikf.sample(x, top_k=50, temperature=0.9, generator=generator, preset="nanochat").tokens.unsqueeze(1),
    ):
        generator.set_state(state)
        assert torch.equal(call(), first)
        assert torch.equal(call(), second)
    generator.set_state(state)
    if device.type == "cuda":
        numbers = dict(seed=5, position=0)
    else:
        numbers = dict(seed=torch.empty((), dtype=torch.int64).random_(-(2**63), None, generator=generator).item())
    assert torch.equal(aikf.sample(x, top_k=50, temperature=0.9, preset="nanochat", **numbers).tokens.unsqueeze(1), first)


def test_default_generator(device):
    x = rows("normal", 4, 300, torch.float32).to(device)
    torch.manual_seed(9)
    first = [aikf.sample_logits(x), aikf.sample(x).tokens, nanochat.sample_next_token(x, None)]
    torch.manual_seed(9)
    for a, b in zip(first, [aikf.sample_logits(x), aikf.sample(x).tokens, nanochat.sample_next_token(x, None)]):
        assert torch.equal(a, b)
    torch.manual_seed(9)
    with torch.random.fork_rng():
        aikf.sample(x)
    assert torch.equal(aikf.sample_logits(x), first[0])


def test_generator_of_another_device_or_type():
    class Elsewhere:
        device = torch.device("cuda", 0)

    for call in (lambda g: nanochat.sample_next_token(X, g), lambda g: aikf.sample_logits(X, generator=g), lambda g: aikf.sample(X, generator=g)):
        with pytest.raises(TypeError, match="generator must be torch.Generator or None, not Elsewhere"):
            call(Elsewhere())
    from aikf._sample import _generator

    with pytest.raises(RuntimeError, match="a generator of cpu for logits on cuda:1"):
        _generator(torch.Generator(), 1, "sample")


def test_sample_logits(device):
    x = X.to(device)
    assert aikf.sample_logits(x).shape == (3,) and aikf.sample_logits(x, num_samples=4).shape == (3, 4)
    assert aikf.sample_logits(x, top_k=10**6).shape == (3,)
    few = aikf.sample_logits(x, top_k=2, num_samples=2, replacement=False)
    assert torch.equal(few.sort().values, x.topk(2).indices.sort().values)
    for name in ("auto", "torch"):
        assert aikf.sample_logits(x, backend=name, top_k=1).tolist() == x.argmax(-1).tolist()
        assert aikf.sample_logits(x, backend=name, temperature=0, num_samples=2).tolist() == [[i, i] for i in x.argmax(-1).tolist()]
    assert aikf.sample_logits(x, backend="torch", num_samples=3).shape == (3, 3)
    for name in ("cuda", "triton", "cutedsl"):
        if device.type == "cuda":
            assert aikf.sample_logits(x, backend=name, top_k=1).tolist() == x.argmax(-1).tolist()
        else:
            with pytest.raises(ValueError, match=f"backend '{name}' for logits on cpu"):
                aikf.sample_logits(x, backend=name)


@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("wrong, message", [
    (dict(temperature=-0.5), r"temperature = -0.5 is outside \[0, \+Inf\)"),
    (dict(temperature=math.nan), r"temperature = nan is outside"),
    (dict(num_samples=0), "num_samples = 0 is outside 1 to 16777216"),
    (dict(top_k=0), "top_k = 0 is less than 1"),
    (dict(top_k=-3), "top_k = -3 is less than 1"),
])  # fmt: skip
def test_sample_logits_errors(wrong, message, backend, device):
    with pytest.raises(ValueError, match=message):
        aikf.sample_logits(X.to(device), backend=backend, **wrong)


def test_sample_logits_shapes_and_backends(device):
    for x in (X[0], X[None], torch.tensor(1.0)):
        with pytest.raises(ValueError, match=f"logits of {x.dim()} dimensions"):
            aikf.sample_logits(x.to(device))
    with pytest.raises(ValueError, match="backend 'cuad', want one of auto, cuda, triton, cutedsl, torch"):
        aikf.sample_logits(X.to(device), backend="cuad")
    with pytest.raises(TypeError, match="logits must be Tensor, not list"):
        aikf.sample_logits([1.0])


def test_nanochat(device):
    x = X.to(device)
    assert nanochat.sample_next_token(x, None, top_k=0).shape == (3, 1)
    assert nanochat.sample_next_token(x, None, 1.0, 10**9).shape == (3, 1)
    assert nanochat.sample_next_token(x, None, 1.0, 1).tolist() == x.argmax(-1, keepdim=True).tolist()
    same = nanochat.sample_next_token(torch.zeros(1, 5000, device=device).expand(32, -1), None)
    assert len(set(same.flatten().tolist())) > 28
    with pytest.raises(ValueError, match="temperature = -1.0 is outside"):
        nanochat.sample_next_token(x, None, -1.0)
    with pytest.raises(ValueError, match="logits of 1 dimensions"):
        nanochat.sample_next_token(x[0], None)
    with pytest.raises(TypeError, match="top_k must be int or None, not float"):
        nanochat.sample_next_token(x, None, 1.0, 2.5)
    with pytest.raises(TypeError, match="nanochat.sample_next_token: temperature must be float, not str"):
        nanochat.sample_next_token(x, None, "a")
    with pytest.raises(TypeError, match="sample_logits: temperature must be float, not bool"):
        aikf.sample_logits(x, temperature=True)
    with pytest.raises(TypeError, match="logits must be Tensor, not NoneType"):
        nanochat.sample_next_token(None, None)


def test_errors(device):
    x = X.to(device)
    pair = torch.zeros(1, dtype=torch.int64, device=device), torch.zeros(1, device=device)
    for error, message, kwargs in (
        (ValueError, r"temperature = -1.0 is outside \[0, \+Inf\)", dict(temperature=-1)),
        (ValueError, r"temperature = inf is outside", dict(temperature=math.inf)),
        (ValueError, r"top_p = 0.0 is outside \(0, 1\]", dict(top_p=0)),
        (ValueError, r"top_p = 1.5 is outside \(0, 1\]", dict(top_p=1.5)),
        (ValueError, r"min_p = nan is outside \[0, 1\]", dict(min_p=math.nan)),
        (ValueError, r"typical_p = 0.0 is outside", dict(typical_p=0.0)),
        (ValueError, r"top_n_sigma = inf is outside", dict(top_n_sigma=math.inf)),
        (ValueError, r"xtc_probability = 2.0 is outside", dict(xtc_probability=2.0)),
        (ValueError, r"repetition_penalty = 0.0 is outside \(0, \+Inf\)", dict(repetition_penalty=0.0, token_counts=pair[:1] * 2)),
        (ValueError, r"presence_penalty without token_counts", dict(presence_penalty=1.0)),
        (ValueError, r"softcap = -2.0 is outside", dict(softcap=-2.0)),
        (ValueError, r"draws = 0 is outside 1 to 16777216", dict(draws=0)),
        (ValueError, r"logprobs = 98 is outside 0 to 97", dict(logprobs=98)),
        (ValueError, r"seed = 18446744073709551616 is outside -2\^63 to 2\^64-1", dict(seed=2**64)),
        (ValueError, r"position without seed", dict(position=2, seed=None)),
        (ValueError, r"seed and generator, want one of them", dict(generator=torch.Generator(device))),
        (ValueError, r"logit_bias id = 97 is outside 0 to 96", dict(logit_bias={97: 1.0})),
        (ValueError, r"logit_bias of 3 = inf is outside", dict(logit_bias={3: math.inf})),
        (ValueError, r"preset 'vlm', want 'vllm' or 'nanochat'", dict(preset="vlm")),
        (NotImplementedError, r"preset 'hf' is of the Go package alone", dict(preset="hf")),
        (TypeError, r"top_k must be int, not float", dict(top_k=2.5)),
        (TypeError, r"top_p must be float or Tensor, not str", dict(top_p="x")),
        (TypeError, r"min_p must be float or Tensor, not str", dict(min_p="0.5")),
        (TypeError, r"temperature must be float or Tensor, not bool", dict(temperature=True)),
        (TypeError, r"softcap must be float or Tensor, not NoneType", dict(softcap=None)),
        (TypeError, r"seed has dtype torch.float32, want torch.int64", dict(seed=torch.zeros(3, device=device))),
        (TypeError, r"bitmask has dtype torch.int64, want torch.int32", dict(bitmask=pair[0])),
        (TypeError, r"token_counts counts has dtype torch.float32, want torch.int32", dict(token_counts=pair)),
        (TypeError, r"logit_bias must be a pair of ids and biases, not Tensor", dict(logit_bias=pair[0])),
        (RuntimeError, r"top_p has shape \[2\], want that of the rows, \[3\]", dict(top_p=torch.ones(2, device=device))),
        (RuntimeError, r"min_p is on meta and the logits are on", dict(min_p=torch.ones(3, device="meta"))),
        (RuntimeError, r"bitmask has shape \[2, 1\], want \[3, words\] or \[words\]", dict(bitmask=torch.zeros(2, 1, device=device).int())),
        (RuntimeError, r"logit_bias ids has shape \[2, 1\], want \[3, n\] or \[n\]", dict(logit_bias=(pair[0].expand(2, 1), pair[1].expand(2, 1)))),
        (RuntimeError, r"logit_bias has 1 ids and 2 biases", dict(logit_bias=(pair[0], torch.zeros(2, device=device)))),
    ):
        with pytest.raises(error, match=message):
            aikf.sample(x, **{"seed": 1, **kwargs})
    with pytest.raises(TypeError, match="logits must be Tensor, not list"):
        aikf.sample([1.0])
    with pytest.raises(ValueError, match="logits have no dimension"):
        aikf.sample(x[0, 0])
    for call in (aikf.sample, aikf.sample_logits, lambda x: nanochat.sample_next_token(x, None)):
        with pytest.raises(ValueError, match="vocab = 0 is outside 1 to 1048576"):
            call(x[:, :0])
        with pytest.raises(ValueError, match="vocab = 1048577 is outside 1 to 1048576"):
            call(torch.zeros(1, 1048577, device=device))
        with pytest.raises(TypeError, match="dtype torch.float64, want torch.float32, torch.float16 or torch.bfloat16"):
            call(x.double())


def test_nothing_requires_grad(device):
    x = X.clone().to(device).requires_grad_()
    leaf = torch.ones(3, device=device, requires_grad=True)
    for result in (
        *aikf.sample(x, seed=1, temperature=leaf, logprobs=2, kept=True),
        *torch.ops.aikf.sample(x, [None] * 13, [None] * 5, [1.0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0], 0, 1, 0, None, 1, 0, True, True, False, 2, False, -1, 0, True),
        aikf.sample_logits(x),
        nanochat.sample_next_token(x, None),
    ):
        assert not result.requires_grad
    with torch.inference_mode():
        assert aikf.sample(x, seed=1).tokens.is_inference()
        assert nanochat.sample_next_token(x, None).is_inference()


def test_operator(device):
    x = X.clone().to(device).requires_grad_()
    bias = torch.zeros(3, 1, dtype=torch.int32, device=device), torch.ones(3, 1, device=device)
    lists = [torch.full((3, 4), -1, dtype=torch.int32, device=device), *bias, bias[0], bias[0]]
    reals = [1.0, 0.9, 0.0, 1.0, 0.0, 0.0, 1.0, 1.2, 0.0, 0.0, 0.0]
    temperature = [torch.ones(3, device=device), *[None] * 12]
    for logprobs in (-1, 0, 2):
        arguments = (x, temperature, lists, reals, 5, 3, 0, None, 2, 0, True, True, False, logprobs, False, -1, 0, logprobs > 0)
        torch.library.opcheck(torch.ops.aikf.sample.default, arguments)


def test_compiled(device):
    x = X.to(device)
    temperature = torch.tensor([0.5, 1, 2], device=device)

    @torch.compile(fullgraph=True)
    def draw(x, temperature, seed, position):
        return aikf.sample(x * 2, temperature=temperature, top_k=20, seed=seed, position=position, logprobs=1, kept=True)

    for position in range(4):
        want = aikf.sample(x * 2, temperature=temperature, top_k=20, seed=7, position=position, logprobs=1, kept=True)
        for a, b in zip(draw(x, temperature, 7, position), want):
            assert torch.equal(a, b)
        for n in (2, 3):
            seeds = torch.arange(n, device=device)
            got = draw(x[:n], temperature[:n], seeds, seeds + position)
            assert torch.equal(got.tokens, aikf.sample(x[:n] * 2, temperature=temperature[:n], top_k=20, seed=seeds, position=seeds + position).tokens)


def test_compiled_with_the_default_generator(device):
    x = X.to(device)

    @torch.compile(fullgraph=True)
    def draw(x):
        return nanochat.sample_next_token(x + 1, None, 0.8, 20), aikf.sample_logits(x + 1, num_samples=2)

    draw(x)
    torch.manual_seed(3)
    got = draw(x)
    torch.manual_seed(3)
    assert torch.equal(got[0], nanochat.sample_next_token(x + 1, None, 0.8, 20))
    assert torch.equal(got[1], aikf.sample_logits(x + 1, num_samples=2))


def test_modes(device):
    class Mode(torch.utils._python_dispatch.TorchDispatchMode):
        seen = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.seen.append(func.name())
            return func(*args, **(kwargs or {}))

    x = X.to(device)
    want = aikf.sample(x, seed=1).tokens
    with Mode():
        assert torch.equal(aikf.sample(x, seed=1).tokens, want)
        aikf.sample_logits(x)
        nanochat.sample_next_token(x, None)
    assert Mode.seen.count("aikf::sample") == 3
    meta = aikf.sample(x.to("meta"), seed=1, draws=2)
    assert meta.tokens.is_meta and meta.tokens.shape == (3, 2)


def test_conjugate_view(device):
    z = torch.complex(torch.zeros(4, 9), rows("normal", 4, 9, torch.float32)).to(device)
    view = z.conj().imag
    assert view.is_neg()
    assert torch.equal(aikf.sample(view, seed=2).tokens, aikf.sample(view.resolve_neg(), seed=2).tokens)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_apply_bitmask(dtype, device):
    x = X.to(dtype).to(device)
    words = torch.randint(-(2**31), 2**31, (3, 4), generator=torch.Generator().manual_seed(1)).int().to(device)
    allowed = torch.tensor([[word >> i & 1 for word in row for i in range(32)] for row in words.tolist()], dtype=torch.bool, device=device)
    want = x.masked_fill(~allowed[:, :97], -math.inf)
    assert torch.equal(aikf.apply_bitmask(x, words), want)
    assert torch.equal(x, X.to(dtype).to(device)), "not in place"
    assert torch.equal(aikf.apply_bitmask(x, words[:, :2]), torch.cat([want[:, :64], x[:, 64:]], 1))
    assert torch.equal(aikf.apply_bitmask(x, words, vocab_size=70), torch.cat([want[:, :70], x[:, 70:]], 1))
    assert torch.equal(aikf.apply_bitmask(x[0], words[0]), want[0])
    assert torch.equal(aikf.apply_bitmask(x, words[0]), x.masked_fill(~allowed[:1, :97], -math.inf))
    some = aikf.apply_bitmask(x, words, indices=torch.tensor([2, 0], device=device))
    assert torch.equal(some, torch.stack([want[0], x[1], want[2]]))
    y = x.clone()
    assert aikf.apply_bitmask_(y, words) is y and torch.equal(y, want)
    if dtype != torch.float64:
        masked, whole = aikf.sample(want, seed=1).tokens, aikf.sample(x, seed=1, bitmask=words).tokens
        assert torch.equal(masked, whole)


def test_apply_bitmask_errors(device):
    x, words = X.to(device), torch.zeros(3, 4, dtype=torch.int32, device=device)
    with pytest.raises(TypeError, match="bitmask has dtype torch.int64"):
        aikf.apply_bitmask(x, words.long())
    with pytest.raises(TypeError, match="logits have dtype torch.int64"):
        aikf.apply_bitmask(x.long(), words)
    for call in (aikf.apply_bitmask, aikf.apply_bitmask_):
        with pytest.raises(TypeError, match="logits must be Tensor, not list"):
            call([1.0], words)
        with pytest.raises(TypeError, match="bitmask must be Tensor, not list"):
            call(x, [1])
        with pytest.raises(ValueError, match="vocab_size = -1 is less than 0"):
            call(x, words, vocab_size=-1)
        with pytest.raises(TypeError, match="vocab_size must be int, not float"):
            call(x, words, vocab_size=2.5)
    with pytest.raises(RuntimeError, match=r"bitmask of \[2, 4\] for logits of \[3, 97\]"):
        aikf.apply_bitmask(x, words[:2])
    with pytest.raises(RuntimeError, match="bitmask is on meta"):
        aikf.apply_bitmask(x, words.to("meta"))
