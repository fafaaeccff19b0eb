"""Launches of sampling, through a driver over host memory: the tokens are those of the CPU."""

import itertools
import random

import pytest
import torch
from oracle import DTYPES, rows
from test_cuda_sample import alike, steps
from test_driver import Fake, Resident
from test_sample import GOLDEN, arguments_of, floats, holds, near

import aikf
from aikf import _native, _sample

NONE = (None,) * 13
REALS = (1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0)


class Numbers:
    """A generator of a GPU."""

    def __init__(self, seed, offset=0):
        self.seed, self.offset = seed, offset

    def initial_seed(self):
        return self.seed

    def get_offset(self):
        return self.offset

    def set_offset(self, offset):
        self.offset = offset


@pytest.fixture
def fake(fake_library):
    fake = Fake(fake_library)
    fake.library.fakecuda_reset()
    fake.start()
    fake.captured, fake.default, fake.slow = False, Numbers(77), []
    fake.sampler = _native.Sampler(
        selector=fake.selector,
        capturing=lambda: fake.captured,
        generator=lambda generator, ordinal, call: fake.default if generator is None else generator,
        draw_seed=None,
        dispatch=lambda call, arguments: fake.slow.append((call, arguments)),
    )
    yield fake
    fake.library.fakecuda_reset()


def on_cpu(x, seed, position, **kwargs):
    return aikf.sample(x, seed=seed, position=position, preset="nanochat", **kwargs).tokens


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_next_token(fake, dtype):
    generator = Numbers(2**63 + 5)
    for kind, (n, vocab, k), t in itertools.product(("normal", "two values"), ((1, 5000, 50), (3, 300, 7), (2, 400, None)), (0.0, 0.8)):
        x = rows(kind, n, vocab, dtype, seed=vocab)
        position = generator.offset
        tokens = fake.sampler.next_token(Resident(x), generator, t, k)
        assert (tokens.tensor == 77).all(), "the kernel ran at once"
        fake.wait()
        assert generator.offset == position + 4
        assert torch.equal(tokens.tensor, on_cpu(x, generator.seed, position, top_k=k, temperature=t)[:, None])


def test_logits(fake):
    x = rows("normal", 3, 500, torch.bfloat16)
    one = fake.sampler.logits(Resident(x), 20, 0.9, None, 1, True)
    many = fake.sampler.logits(Resident(x[:1].expand(4, -1)), 20, 0.9, None, 3, False)
    fake.wait()
    assert one.tensor.shape == (3,) and torch.equal(one.tensor, on_cpu(x, 77, 0, top_k=20, temperature=0.9))
    want = on_cpu(x[:1].expand(4, -1), 77, 4, top_k=20, temperature=0.9, draws=3, replacement=False)
    assert torch.equal(many.tensor, want) and fake.default.offset == 8


def test_capture_names_seed_and_position(fake):
    fake.captured = True
    for call in (lambda x: fake.sampler.next_token(x, None, 1.0, 5), lambda x: fake.sampler.logits(x, 5, 1.0, Numbers(1), 1, True)):
        with pytest.raises(RuntimeError, match="frozen in the graph that is captured; give aikf.sample seed= and position="):
            call(Resident(rows("normal", 1, 50, torch.float32)))
    assert fake.default.offset == 0 and fake.calls("cuLaunchKernelEx") == 0


def test_what_is_not_short_goes_the_other_way(fake):
    x = rows("normal", 4, 64, torch.float32)
    for view in (x[:, ::2], x[0], x.view(2, 2, 64)):
        fake.sampler.next_token(Resident(view), None, 1.0, 5)
    fake.sampler.logits(x, None, 1.0, None, 1, True)  # of a type that is not among the plain ones
    assert [call for call, _ in fake.slow] == ["nanochat.sample_next_token"] * 3 + ["sample_logits"]
    assert fake.slow[3][1][1:] == (None, 1.0, None, 1, True) and fake.default.offset == 0


def launch(fake, x, rows_, edits, draws, logprobs, top_k, numbers=(), most=0, reals=REALS):
    """Sample into tensors by a launch."""
    answers = [
        torch.empty(shape, dtype=dtype) if there else None
        for (shape, dtype), there in zip(_sample.shapes(x, draws, logprobs, 0), _sample.wanted(logprobs, False))
    ]
    words = 0 if edits[0] is None else edits[0].shape[-1]
    count = lambda ids: 0 if ids is None else ids.shape[-1]  # noqa: E731
    numbers = (
        *reals, top_k, 5, 9, words, words, count(edits[1]), count(edits[3]), draws, 0, draws, True, False, -1, max(logprobs, 0), False, most or top_k
    )  # fmt: skip
    assert fake.sampler.sample(Resident(x), rows_, edits, tuple(answers), numbers)
    fake.wait()
    return answers


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_parameters_of_rows(fake, dtype):
    x = rows("normal", 4, 700, dtype)
    temperature, top_k = torch.tensor([0.0, 0.5, 1, 2]), torch.tensor([5, 0, 60, 7], dtype=torch.int32)
    top_p, min_p = torch.tensor([1, 0.9, 0.5, 1]), torch.tensor([0.0, 0.01, 0, 0.1])
    seed, position = torch.tensor([1, -2, 3, 2**40]), torch.tensor([2**33, 1, 2, 3])
    given = (temperature, top_k, top_p, min_p, *[None] * 7, seed, position)
    for draws in (1, 3):
        tokens, status, *_ = launch(fake, x, given, (None,) * 5, draws, -1, 0)
        want = aikf.sample(
            x, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed, position=position, draws=draws, first_draw=0
        )
        # A seed for each row and draws that move on with the row: those of the launch above.
        for i in range(4):
            one = aikf.sample(x[i], temperature=temperature[i], top_k=top_k[i], top_p=top_p[i], min_p=min_p[i], seed=seed[i],
                              position=position[i], draws=draws, first_draw=i * draws)  # fmt: skip
            assert torch.equal(tokens[i], one.tokens)
        assert torch.equal(status, want.status)


def test_failing_launch(fake):
    x = rows("normal", 2, 300, torch.float32)
    fake.fail("cuLaunchKernelEx", 701)
    with pytest.raises(RuntimeError, match=r"aikf: cuLaunchKernelEx: CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES \(701\)"):
        fake.sampler.next_token(Resident(x), None, 1.0, 5)
    tokens = fake.sampler.next_token(Resident(x), None, 1.0, 5)
    fake.wait()
    assert torch.equal(tokens.tensor, on_cpu(x, 77, 4, top_k=5)[:, None])


def test_ptx_is_loaded_when_it_is_needed(fake):
    fake.set("major", 12)
    x = Resident(torch.arange(9.0)[None])
    fake.topk(torch.zeros(9), 1)
    assert fake.calls("cuLibraryLoadData") == 1
    for _ in range(2):
        tokens = fake.sampler.next_token(x, None, 1.0, 1)
        fake.wait()
        assert tokens.tensor.item() == 8
        assert fake.calls("cuLibraryLoadData") == 2
    fake.fail("cuLibraryLoadData", 222)
    with pytest.raises(RuntimeError, match=r"cuLibraryLoadData: .*\(222\)"):
        fake.sampler.next_token(Resident(torch.zeros(1, 5000)), None, 1.0, None)


def test_image_without_the_kernel(fake):
    device = _native.Device(
        ordinal=0, context=0, launch=0, push=0, pop=0, current=0, multiprocessors=132, cluster_blocks=0, kernels={}, load=lambda symbol: {}, error=print
    )
    fake.driver.open = lambda ordinal: device
    sampler = _native.Sampler(
        selector=fake.new_selector(), capturing=bool, generator=lambda *_: fake.default, draw_seed=None, dispatch=None
    )
    with pytest.raises(RuntimeError, match="aikf.nanochat.sample_next_token: device 0 has no kernel sample_f32"):
        sampler.next_token(Resident(torch.zeros(1, 9)), None, 1.0, 3)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_verify(fake, dtype):
    sequences, drafts, vocab = 6, 3, 200
    logits = rows("normal", sequences * (drafts + 1), vocab, dtype).view(sequences, drafts + 1, vocab)
    draft = (logits[:, :drafts].float() + torch.randn(sequences, drafts, vocab, generator=torch.Generator().manual_seed(1)) / 2).to(dtype)
    drafted = aikf.sample(draft, seed=4).tokens
    for k, probabilities in ((0, None), (20, None), (0, draft.float().softmax(-1))):
        answers = [torch.empty(shape, dtype=t) for shape, t in _sample.verify_shapes(drafted)]
        workspace = torch.zeros(sequences, dtype=torch.int64)
        law = (1.0, 1.0, 0.0, 0.0, k, False, k)
        assert fake.sampler.verify(
            Resident(logits), None if probabilities is not None else Resident(draft), (None,) * 10,
            (probabilities, drafted, None, *answers, workspace), law, law, (3, 5, sequences, drafts, 8, 0, 1, -1),
        )  # fmt: skip
        fake.wait()
        given = dict(draft_logits=draft) if probabilities is None else dict(draft_probabilities=probabilities)
        for a, b in zip(answers, aikf.speculative_verify(logits, drafted, top_k=k, seed=3, position=5, **given)):
            assert torch.equal(a, b)
        assert (workspace == 0).all()


class Played:
    """A sampler whose launches have ended when it returns, for tensors on the CPU."""

    def __init__(self, fake):
        self.fake = fake

    def quiet(self, x):
        return True

    def sample(self, logits, *given):
        done = self.fake.sampler.sample(Resident(logits), *given)
        self.fake.wait()
        return done


@pytest.fixture
def played(fake, monkeypatch):
    """sample by launches, and a function that samples on the CPU."""
    sampler = _sample._sampler

    def on_cpu_(x, **kwargs):
        with monkeypatch.context() as patch:
            patch.setattr(_sample, "_sampler", sampler)
            return aikf.sample(x, **kwargs)

    monkeypatch.setattr(_sample, "_sampler", Played(fake))
    return on_cpu_


def test_golden_tokens(played):
    unsupported = 0
    for case in GOLDEN:
        x = floats(case["logits"], case["rows"], case["vocab"], getattr(torch, case["dtype"]))
        given = arguments_of(case, "cpu")
        try:
            holds(case, aikf.sample(x, **given), near)
        except NotImplementedError:
            unsupported += 1
    assert unsupported < len(GOLDEN) / 2


@pytest.mark.parametrize("edits", [False, True], ids=["plain", "edited"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_random_steps(played, dtype, edits):
    choose = random.Random(8)
    torch.manual_seed(8)
    unsupported = 0
    for seed in range(40):
        n, vocab = choose.choice([1, 2, 5]), choose.choice([1, 37, 700, 1300])
        x = rows(("normal", "normal", "two values", "masked", "special")[seed % 5], n, vocab, dtype, seed) * choose.choice([1, 4])
        given = steps(choose, n, vocab, edits)
        want = played(x, **given)
        try:
            got = aikf.sample(x, **given)
        except NotImplementedError:
            unsupported += 1
            continue
        alike(got, want, (tuple(x.shape), x.dtype, given))
    assert unsupported < 20
