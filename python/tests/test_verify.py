"""Verification of drafts. That the CPU gives the tokens of the Go package is tested there."""

import math

import pytest
import torch
from oracle import DTYPES, rows

import aikf
from aikf import Status

S, D, V = 5, 3, 40


def batch(device, dtype=torch.float32, seed=0, sequences=S):
    logits = rows("normal", sequences * (D + 1), V, dtype, seed).view(sequences, D + 1, V).to(device)
    drafted = torch.randint(V, (sequences, D), generator=torch.Generator().manual_seed(seed)).to(device)
    return logits, drafted


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_own_draft_stands(dtype, device):
    """Tokens of the target's own law are all accepted, and the last is what sample draws there."""
    logits, drafted = batch(device, dtype)
    for kwargs in (dict(), dict(top_k=7), dict(top_p=0.8, min_p=0.01, temperature=0.7), dict(softcap=3.0, preset="nanochat", top_k=9)):
        own = aikf.sample(logits, seed=9, **kwargs).tokens[:, :D]
        result = aikf.speculative_verify(logits, own, draft_logits=logits[:, :D], seed=torch.arange(S, device=device), position=4, **kwargs)
        assert result.tokens.dtype == torch.int64 and result.accepted.dtype == torch.int32 and result.status.dtype == torch.uint8
        assert result.accepted.tolist() == [D] * S and result.status.tolist() == [Status.OK] * S
        assert torch.equal(result.tokens[:, :D], own)
        last = aikf.sample(logits[:, D], seed=torch.arange(S, device=device), position=4 + D, **kwargs).tokens
        assert torch.equal(result.tokens[:, D], last)


def test_greedy_compares_with_the_largest(device):
    logits, drafted = batch(device)
    best = logits.argmax(-1)
    drafted = best[:, :D].clone()
    drafted[1, 0] = (drafted[1, 0] + 1) % V
    drafted[3, 2] = (drafted[3, 2] + 1) % V
    result = aikf.speculative_verify(logits, drafted, draft_logits=logits[:, :D], draft_temperature=1.0, temperature=0, seed=1)
    assert result.accepted.tolist() == [3, 0, 3, 2, 3]
    for i, n in enumerate(result.accepted.tolist()):
        assert result.tokens[i].tolist() == best[i, : n + 1].tolist() + [-1] * (D - n)


def test_law_of_the_first_token(device):
    """Whatever drafts, the first token has the target's law: 40,000 sequences, within five deviations."""
    n = 40000
    target, draft = torch.tensor([1.0, 0.0, -1.0, 0.5, -math.inf]).to(device), torch.tensor([-1.0, 1.0, 0.0, 0.5, 1.0]).to(device)
    logits = target.expand(n, 2, 5)
    drafted = aikf.sample(draft.expand(n, 5), seed=3).tokens[:, None]
    p = target.double().softmax(-1).cpu()
    for kwargs in (dict(draft_logits=draft.expand(n, 1, 5)), dict(draft_probabilities=draft.softmax(-1).expand(n, 1, 5))):
        result = aikf.speculative_verify(logits, drafted, seed=5, **kwargs)
        counts = torch.bincount(result.tokens[:, 0], minlength=5).double().cpu()
        assert ((counts - n * p).abs() <= 5 * (n * p * (1 - p)).sqrt()).all() and counts[4] == 0
        assert 0 < result.accepted.sum() < n


def test_counts_and_failures(device):
    logits, drafted = batch(device)
    own = logits.argmax(-1)[:, :D].clone()
    kwargs = dict(draft_logits=logits[:, :D], temperature=0, seed=1, invalid_token=0)
    count = torch.tensor([3, 0, 1, -1, 4], device=device)
    result = aikf.speculative_verify(logits, own, drafted_count=count, **kwargs)
    assert result.accepted.tolist() == [3, 0, 1, 0, 0]
    assert result.status.tolist() == [0, 0, 0, Status.BAD_PARAMETERS, Status.BAD_PARAMETERS]
    assert result.tokens[1].tolist() == [logits[1, 0].argmax().item(), 0, 0, 0]
    own[2, 1] = V
    assert aikf.speculative_verify(logits, own, **kwargs).status.tolist() == [0, 0, Status.BAD_PARAMETERS, 0, 0]
    logits = logits.clone()
    logits[0, 1, 3] = math.nan
    logits[4, 2] = -math.inf
    own[2, 1] = 0
    result = aikf.speculative_verify(logits, own, **{**kwargs, "draft_logits": batch(device)[0][:, :D]})
    assert result.status.tolist()[0] == Status.NAN and result.status.tolist()[4] == Status.EMPTY
    assert result.accepted.tolist()[0] == 1 and result.accepted.tolist()[4] == 2
    temperature = torch.tensor([1.0, -1, 1, 1, math.nan], device=device)
    probabilities = batch(device)[0][:, :D].softmax(-1)
    result = aikf.speculative_verify(batch(device)[0], drafted, draft_probabilities=probabilities, temperature=temperature, seed=1)
    assert [s == Status.BAD_PARAMETERS for s in result.status.tolist()] == [False, True, False, False, True]
    probabilities[3, 1, 2] = 1.5
    assert aikf.speculative_verify(batch(device)[0], drafted, draft_probabilities=probabilities, seed=1).status[3] == Status.BAD_PARAMETERS


def test_layouts(device):
    """Rows, tokens and laws that lie elsewhere in memory give the same."""
    logits, drafted = batch(device, torch.bfloat16)
    draft = batch(device, torch.bfloat16, seed=1)[0][:, :D]
    want = aikf.speculative_verify(logits, drafted, draft_logits=draft, seed=2)
    wide = torch.zeros(S, D + 1, V + 9, dtype=torch.bfloat16, device=device)
    wide[:, :, 1 : V + 1] = logits
    tokens = torch.zeros(D, S, dtype=torch.int32, device=device)
    tokens.copy_(drafted.t())
    for x, y in ((wide[:, :, 1 : V + 1], tokens.t()), (logits.transpose(0, 1).contiguous().transpose(0, 1), drafted.to(torch.int16))):
        for a, b in zip(aikf.speculative_verify(x, y, draft_logits=draft, seed=2), want):
            assert torch.equal(a, b)


def test_no_sequences_and_no_drafts(device):
    logits, drafted = batch(device)
    none = aikf.speculative_verify(logits[:0], drafted[:0], draft_logits=logits[:0, :D], seed=1)
    assert none.tokens.shape == (0, D + 1) and none.accepted.shape == (0,)
    bonus = aikf.speculative_verify(logits[:, :1], drafted[:, :0], seed=1)
    assert torch.equal(bonus.tokens[:, 0], aikf.sample(logits[:, 0], seed=1).tokens)


def test_generator(device):
    logits, drafted = batch(device)
    draft = batch(device, seed=1)[0][:, :D]
    generator = torch.Generator(device).manual_seed(8)
    state = generator.get_state()
    first = aikf.speculative_verify(logits, drafted, draft_logits=draft, generator=generator)
    generator.set_state(state)
    again = aikf.speculative_verify(logits, drafted, draft_logits=draft, generator=generator)
    assert torch.equal(first.tokens, again.tokens)


def test_errors(device):
    logits, drafted = batch(device)
    good = dict(draft_logits=logits[:, :D], seed=1)
    for error, message, kwargs in (
        (ValueError, r"draft_logits or draft_probabilities, want one of them", dict(draft_logits=None)),
        (ValueError, r"draft_temperature = -1.0 is outside \[0, \+Inf\)", dict(draft_temperature=-1)),
        (ValueError, r"aikf.speculative_verify: top_p = 0.0 is outside \(0, 1\]", dict(top_p=0)),
        (ValueError, r"preset 'vlm'", dict(draft_preset="vlm")),
        (NotImplementedError, r"preset 'hf'", dict(preset="hf")),
        (ValueError, r"position without seed", dict(seed=None, position=1)),
        (TypeError, r"draft_logits has dtype torch.float16, want torch.float32", dict(draft_logits=logits[:, :D].half())),
        (TypeError, r"drafted_count must be Tensor, not int", dict(drafted_count=3)),
        (RuntimeError, r"draft_logits has shape \[5, 4, 40\], want \[5, 3, 40\]", dict(draft_logits=logits)),
        (RuntimeError, r"temperature has shape \[4\], want that of the rows, \[5\]", dict(temperature=torch.ones(4, device=device))),
    ):
        with pytest.raises(error, match=message):
            aikf.speculative_verify(logits, drafted, **{**good, **kwargs})
    with pytest.raises(ValueError, match=r"logits of \[5, 40\] and drafted of \[5, 3\], want \[sequences, drafts \+ 1, vocab\]"):
        aikf.speculative_verify(logits[:, 0], drafted, **good)
    with pytest.raises(TypeError, match="drafted has dtype torch.float32"):
        aikf.speculative_verify(logits, drafted.float(), **good)
    with pytest.raises(TypeError, match="dtype torch.float64, want torch.float32"):
        aikf.speculative_verify(logits.double(), drafted, draft_logits=logits[:, :D].double(), seed=1)


def test_operator_and_compiled(device):
    logits, drafted = batch(device)
    draft = batch(device, seed=1)[0][:, :D]
    rows_ = [None] * 10
    arguments = (logits, drafted, draft, None, None, rows_, [1.0, 1, 0, 0], [1.0, 1, 0, 0], 0, 9, False, False, 3, 0, None, 0, True, -1, 0, 0)
    torch.library.opcheck(torch.ops.aikf.speculative_verify.default, arguments)

    @torch.compile(fullgraph=True)
    def verify(logits, drafted, draft, position):
        return aikf.speculative_verify(logits + 1, drafted, draft_logits=draft, top_k=9, seed=3, position=position)

    for position in range(3):
        for a, b in zip(verify(logits, drafted, draft, position),
                        aikf.speculative_verify(logits + 1, drafted, draft_logits=draft, top_k=9, seed=3, position=position)):  # fmt: skip
            assert torch.equal(a, b)
    leaf = logits.clone().requires_grad_()
    assert not any(t.requires_grad for t in aikf.speculative_verify(leaf, drafted, draft_logits=leaf[:, :D], seed=3))
