"""Sampling as only a GPU shows it: the tokens of the CPU, graphs, generators, streams, no waits."""

import random
import threading

import pytest
import torch
from oracle import DTYPES, rows
from test_sample import near

import aikf
from aikf import nanochat

BATCH = (16, 50304)
CAPTURED = "frozen in the graph that is captured; give aikf.sample seed= and position="


@pytest.fixture(autouse=True)
def gpu(cuda):
    """Every test here needs the GPU, and leaves no fault behind."""
    yield cuda
    torch.cuda.synchronize()


def moved(value, device):
    """Return an argument on another device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    return tuple(moved(v, device) for v in value) if isinstance(value, tuple) else value


def same(x, gpu, **kwargs):
    """Assert that the GPU answers what the CPU does, logprobs and probabilities as near as the contract says."""
    here = aikf.sample(x, **kwargs)
    there = aikf.sample(x.to(gpu), **{name: moved(value, gpu) for name, value in kwargs.items()})
    alike(there, here, (tuple(x.shape), x.dtype, kwargs))


def alike(there, here, what):
    """Assert that answers are those of the CPU."""
    for name, a, b in zip(here._fields, here, there):
        if a is None:
            assert b is None
        elif name == "kept_count":
            # Not told there of rows without top-k, whatever their status.
            b = b.cpu()
            assert torch.equal(a, torch.where((b == -1) & (a == 0), 0, b)), (a, b, what)
        elif a.is_floating_point():
            near(b.cpu(), a)
        else:
            assert torch.equal(a, b.cpu()), (name, a, b, what)


def steps(choose, n, vocab, edits=False):
    """Return random arguments, most of them off."""
    reals = lambda least, most: torch.empty(n).uniform_(least, most)  # noqa: E731
    given = {"seed": choose.getrandbits(63), "position": choose.getrandbits(choose.randrange(1, 63)), "draws": choose.choice([1, 1, 1, 2, 5])}
    maybe = {
        "temperature": lambda: choose.choice([0.0, 0.3, 1.7, reals(0, 2)]),
        "top_k": lambda: choose.choice([1, 50, 200, 1024, vocab + 1, torch.randint(0, 80, (n,))]),
        "top_p": lambda: choose.choice([0.9, 0.3, reals(0.1, 1)]),
        "min_p": lambda: choose.choice([0.05, 0.001, reals(0, 0.3)]),
        "typical_p": lambda: choose.choice([0.9, reals(0.1, 1)]),
        "top_n_sigma": lambda: choose.choice([1.0, reals(0, 3)]),
        "xtc_probability": lambda: choose.choice([0.5, 1.0]),
        "xtc_threshold": lambda: choose.choice([0.01, 0.1]),
        "softcap": lambda: 15.0,
        "replacement": lambda: False,
        "preset": lambda: "nanochat",
        "logprobs": lambda: choose.choice([0, 1, min(20, vocab)]),
        "processed_logprobs": lambda: True,
        "kept": lambda: True,
        "seed": lambda: torch.arange(n) * 7919,
    }
    if edits:
        maybe["bitmask"] = lambda: torch.randint(-(2**31), 2**31, (n, (vocab + 31) // 32)).int()
        maybe["logit_bias"] = lambda: (torch.stack([torch.randperm(vocab)[:20] for _ in range(n)]), torch.randn(n, min(20, vocab)))
    for name, make in maybe.items():
        if choose.random() < 0.3:
            given[name] = make()
    if given.keys() & {"typical_p", "top_n_sigma", "xtc_probability", "processed_logprobs"}:  # behind a top_k alone
        given["top_k"] = choose.choice([1, 50, 200, 1024, torch.randint(1, 80, (n,))])
    if edits and choose.random() < 0.5:
        ids = torch.stack([torch.randperm(vocab)[:64] for _ in range(n)])
        given["token_counts"] = ids, torch.randint(0, 4, ids.shape)
        given.update(repetition_penalty=1.2, frequency_penalty=reals(-0.5, 0.5), presence_penalty=0.3)
    return given


@pytest.mark.parametrize("edits", [False, True], ids=["plain", "edited"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tokens_are_those_of_the_cpu(dtype, edits, gpu):
    choose = random.Random(5)
    torch.manual_seed(5)
    for seed in range(250):
        n = choose.choice([1, 2, 7, 32])
        vocab = choose.choice([1, 37, 1000, 5003, 32768]) if n > 7 else choose.choice([2, 700, 10007, 50304, 70001])
        x = rows(("normal", "normal", "two values", "masked", "special")[seed % 5], n, vocab, dtype, seed) * choose.choice([1, 4])
        same(x, gpu, **steps(choose, n, vocab, edits))


def test_steps_that_want_a_top_k(gpu):
    x = rows("normal", 2, 5000, torch.bfloat16).to(gpu)
    for name, value in (("typical_p", 0.9), ("top_n_sigma", 1.0), ("xtc_probability", 0.5), ("processed_logprobs", True)):
        kwargs = {name: value, "seed": 1, "xtc_threshold": 0.1, "logprobs": 2}
        for top_k in (None, 3000):
            with pytest.raises(NotImplementedError, match=rf"{name} on a GPU without a top_k from 1 to 2048, got {top_k or 0}"):
                aikf.sample(x, top_k=top_k, **kwargs)
        assert aikf.sample(x, top_k=50, **kwargs).status.tolist() == [0, 0]


def test_large_batches(gpu):
    for dtype in DTYPES:
        x = rows("normal", 512, 3001, dtype)
        same(x, gpu, top_k=50, top_p=0.9, seed=3, draws=2)
        same(x, gpu, top_p=0.95, seed=torch.arange(512))
        same(x, gpu, temperature=0, seed=1)


def test_capture_and_replay(gpu):
    """One graph serves 10,000 steps whose parameters, seeds, positions and logits change."""
    n = 4
    bank = rows("normal", 64 * n, 1000, torch.bfloat16).view(64, n, 1000).to(gpu)
    temperatures = torch.linspace(0, 2, 64, device=gpu)
    seed, position = torch.arange(n, device=gpu), torch.zeros(n, dtype=torch.int64, device=gpu)
    temperature, top_k = torch.ones(n, device=gpu), torch.zeros(n, dtype=torch.int32, device=gpu)
    step = torch.zeros(1, dtype=torch.int64, device=gpu)
    history = torch.zeros(10_000, n, dtype=torch.int64, device=gpu)

    def advance():
        at = step % 64
        temperature.copy_(temperatures.index_select(0, at).expand(n))
        top_k.copy_((step % 90).expand(n))
        tokens = aikf.sample(bank.index_select(0, at)[0], temperature=temperature, top_k=top_k, top_p=0.95, seed=seed, position=position).tokens
        history.index_copy_(0, step, tokens[None])
        position.add_(1)
        step.add_(1)

    advance()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        advance()
    step.zero_()
    position.zero_()
    for _ in range(len(history)):
        graph.replay()
    torch.cuda.synchronize()
    for i in range(0, len(history), 37):
        want = aikf.sample(bank[i % 64].cpu(), temperature=temperatures[i % 64].item(), top_k=i % 90, top_p=0.95, seed=seed.cpu(), position=i)
        assert torch.equal(history[i].cpu(), want.tokens), i


def test_scalar_position_on_the_device(gpu):
    x = rows("normal", 8, 50304, torch.float32).to(gpu)
    position = torch.zeros((), dtype=torch.int64, device=gpu)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = aikf.sample(x, top_k=50, seed=12, position=position)
        position += 1
    for i in range(3):
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(result.tokens, aikf.sample(x, top_k=50, seed=12, position=i).tokens)


def test_generator_in_a_capture(gpu):
    x = rows("normal", 2, 500, torch.float32).to(gpu)
    generator = torch.Generator(gpu).manual_seed(1)
    calls = (
        lambda: nanochat.sample_next_token(x, generator), lambda: nanochat.sample_next_token(x, None), lambda: aikf.sample_logits(x),
        lambda: aikf.sample(x, generator=generator),
        lambda: aikf.speculative_verify(x[None], torch.zeros(1, 1, dtype=torch.int64, device=gpu), draft_logits=x[None, :1]),
    )  # fmt: skip
    for call in calls:
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            kept = aikf.sample(x, seed=1)
            with pytest.raises(RuntimeError, match=CAPTURED):
                call()
        graph.replay()
        assert torch.equal(kept.tokens, aikf.sample(x, seed=1).tokens)
    assert generator.get_offset() == 0
    for call in calls:
        call()  # elsewhere it is as before


def test_generator_moves_on_without_a_wait(gpu):
    x = rows("normal", 4, 50304, torch.bfloat16).to(gpu)
    generator = torch.Generator(gpu).manual_seed(41)
    generator.set_offset(8)
    first = nanochat.sample_next_token(x, generator, 0.9, 50)
    assert generator.get_offset() == 12 and generator.initial_seed() == 41
    assert torch.equal(first[:, 0], aikf.sample(x, top_k=50, temperature=0.9, seed=41, position=8, preset="nanochat").tokens)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        temperature, seed = torch.ones(4, device=gpu), torch.arange(4, device=gpu)
        for _ in range(3):
            nanochat.sample_next_token(x, generator, 1.0, 50)
            nanochat.sample_next_token(x, None)
            aikf.sample_logits(x, num_samples=2)
            aikf.sample(x, temperature=temperature, top_p=temperature, top_k=seed, seed=seed, position=seed, logprobs=3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda._sleep(200_000_000)
    nanochat.sample_next_token(x, generator, 1.0, 50)
    assert not torch.cuda.current_stream().query()


def test_generator_of_another_device(gpu):
    x = rows("normal", 2, 50, torch.float32)
    for logits, generator in ((x.to(gpu), torch.Generator()), (x, torch.Generator(gpu))):
        for call in (
            lambda: nanochat.sample_next_token(logits, generator), lambda: aikf.sample_logits(logits, generator=generator),  # noqa: B023
            lambda: aikf.sample(logits, generator=generator),  # noqa: B023
        ):  # fmt: skip
            with pytest.raises(RuntimeError, match=r"a generator of (cpu|cuda:0) for logits on (cpu|cuda:0)"):
                call()


def test_expanded_row_gives_different_tokens(gpu):
    logits = rows("normal", 1, 32768, torch.float32).to(gpu).expand(16, -1)
    tokens = nanochat.sample_next_token(logits, torch.Generator("cuda").manual_seed(42), 1.0, 50)
    assert tokens.shape == (16, 1) and len(set(tokens.flatten().tolist())) > 8


def test_two_streams_at_once(gpu):
    streams = [torch.cuda.Stream() for _ in range(2)]
    inputs = [rows("normal", 4, 50304, torch.bfloat16, seed).to(gpu) for seed in range(2)]
    torch.cuda.synchronize()
    results = []
    for i in range(200):
        with torch.cuda.stream(streams[i % 2]):
            results.append(aikf.sample(inputs[i % 2], top_p=0.9, top_k=None if i % 3 else 50, seed=i).tokens)
    torch.cuda.synchronize()
    for i, tokens in enumerate(results):
        assert torch.equal(tokens, aikf.sample(inputs[i % 2], top_p=0.9, top_k=None if i % 3 else 50, seed=i).tokens)


def test_current_stream(gpu):
    x = torch.zeros(BATCH, device=gpu)
    fill = rows("normal", *BATCH, torch.float32).to(gpu)
    want = aikf.sample(fill, top_k=50, seed=1).tokens
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(100_000_000)
        x.copy_(fill)
        late = aikf.sample(x, top_k=50, seed=1).tokens
        assert torch.equal(late, want)


def test_threads(gpu):
    x = rows("normal", 4, 50304, torch.bfloat16).to(gpu)
    want = [aikf.sample(x, top_k=50, seed=seed).tokens for seed in range(4)]
    torch.cuda.synchronize()
    failures = []

    def work(seed):
        try:
            for _ in range(50):
                assert torch.equal(aikf.sample(x, top_k=50, seed=seed).tokens, want[seed])
                nanochat.sample_next_token(x, None, 1.0, 50)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_allocations(gpu):
    x = rows("normal", 4, 50304, torch.bfloat16).to(gpu)

    def allocations(call):
        call()
        before = torch.cuda.memory_stats()["allocation.all.allocated"]
        call()
        return torch.cuda.memory_stats()["allocation.all.allocated"] - before

    assert allocations(lambda: nanochat.sample_next_token(x, None, 1.0, 50)) == 1
    assert allocations(lambda: aikf.sample_logits(x[:, :50257], top_k=50)) == 1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_verdicts_are_those_of_the_cpu(dtype, gpu):
    choose = random.Random(9)
    for seed in range(40):
        sequences, drafts, vocab = choose.choice([1, 3, 16]), choose.choice([0, 1, 4, 7]), choose.choice([2, 300, 5003, 50304])
        if sequences * vocab > 100_000:
            sequences = 1
        logits = rows(("normal", "two values", "special")[seed % 3], sequences * (drafts + 1), vocab, dtype, seed).view(sequences, drafts + 1, vocab)
        noise = rows("normal", sequences * drafts, vocab, torch.float32, seed + 1).view(sequences, drafts, vocab) if drafts else logits[:, :0].float()
        draft = (logits[:, :drafts].float() + noise * choose.choice([0, 0.3, 3])).to(dtype)
        drafted = aikf.sample(draft, seed=seed).tokens.clamp(min=0) if drafts else torch.zeros(sequences, 0, dtype=torch.int64)
        given = {"seed": seed, "position": seed * 3, "temperature": choose.choice([0, 0.8, 1]), "top_k": choose.choice([None, 1, 50])}
        given |= {"top_p": choose.choice([1, 0.9]), "min_p": choose.choice([0, 0.02]), "draft_top_k": choose.choice([None, 20])}
        law = {"draft_logits": draft} if choose.random() < 0.5 else {"draft_probabilities": draft.float().softmax(-1)}
        here = aikf.speculative_verify(logits, drafted, **law, **given)
        there = aikf.speculative_verify(logits.to(gpu), drafted.to(gpu), **{name: value.to(gpu) for name, value in law.items()}, **given)
        for a, b in zip(here, there):
            assert torch.equal(a, b.cpu()), (seed, given)


def test_compiled_into_a_graph(gpu):
    torch._dynamo.reset()
    draw = torch.compile(
        lambda x, seed, position: aikf.sample(x * 2, top_k=50, seed=seed, position=position).tokens, fullgraph=True, mode="reduce-overhead"
    )
    seed = torch.arange(4, device=gpu)
    for i in range(5):
        x = rows("normal", 4, 50304, torch.bfloat16, i).to(gpu)
        position = torch.full((4,), i, device=gpu)
        torch.compiler.cudagraph_mark_step_begin()
        assert torch.equal(draw(x, seed, position).clone(), aikf.sample(x * 2, top_k=50, seed=seed, position=position).tokens)
