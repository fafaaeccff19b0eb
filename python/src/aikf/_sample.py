"""Sampling for torch: what a call comes to before the extension has it, and the ways that are not the short one."""

from __future__ import annotations

import enum
import operator
from typing import Any, Mapping, NamedTuple, Optional, Tuple, Union

import torch
from torch.compiler import is_dynamo_compiling as _is_compiling

from . import _native, _torch

Number = Union[float, int, torch.Tensor]
Lists = Tuple[torch.Tensor, torch.Tensor]

MOST_VOCAB = 1 << 20
MOST_DRAWS = 1 << 24
MOST_DRAFTS = 1 << 16
MOST_LOGPROBS = 1024
MOST_KEPT = 1024
REALS = (  # parameters, and what turns each off
    ("temperature", 1.0), ("top_p", 1.0), ("min_p", 0.0), ("typical_p", 1.0), ("top_n_sigma", 0.0), ("xtc_probability", 0.0),
    ("xtc_threshold", 1.0), ("repetition_penalty", 1.0), ("frequency_penalty", 0.0), ("presence_penalty", 0.0),
)  # fmt: skip
PENALTIES = 7  # place of the first
PRESETS = ("vllm", "nanochat")
OTHER_PRESETS = ("llama.cpp", "hf", "sglang", "mlx", "ollama")  # of the Go package
BACKENDS = ("auto", "cuda", "triton", "cutedsl", "torch")


class Status(enum.IntEnum):
    """How the sampling of a row went."""

    OK = 0
    NAN = 1  #: a logit that is not masked is NaN
    EMPTY = 2  #: every logit is -Inf behind the edits
    EXHAUSTED = 3  #: draws without replacement found no further token
    BAD_PARAMETERS = 4  #: a parameter of the row, in a tensor, is out of its range


class SampleResult(NamedTuple):
    """What :func:`sample` returns. ``...`` is the shape of the logits without the vocabulary."""

    tokens: torch.Tensor  #: int64, [...] for one draw, else [..., draws]
    status: torch.Tensor  #: uint8, [...]: a :class:`Status` for each row
    logprobs: Optional[torch.Tensor] = None  #: float32, as tokens: of the tokens; -Inf where there is no token
    ranks: Optional[torch.Tensor] = None  #: int32, as tokens: 1 for the most likely; 0 where there is no token
    top_ids: Optional[torch.Tensor] = None  #: int32, [..., logprobs]: the most likely, best first
    top_logprobs: Optional[torch.Tensor] = None  #: float32, as top_ids
    kept_ids: Optional[torch.Tensor] = None  #: int32, [..., most]: what the steps leave of a row, the largest logit first; then -1
    kept_count: Optional[torch.Tensor] = None  #: int32, [...]: how many they are, or -1 if there is no room for what top_k leaves
    kept_probabilities: Optional[torch.Tensor] = None  #: float32, as kept_ids: among the kept; then 0


def sample(
    logits: torch.Tensor,
    *,
    temperature: Number = 1.0,
    top_k: Union[None, int, torch.Tensor] = None,
    top_p: Number = 1.0,
    min_p: Number = 0.0,
    typical_p: Number = 1.0,
    top_n_sigma: Number = 0.0,
    xtc_probability: Number = 0.0,
    xtc_threshold: Number = 1.0,
    repetition_penalty: Number = 1.0,
    frequency_penalty: Number = 0.0,
    presence_penalty: Number = 0.0,
    token_counts: Optional[Lists] = None,
    logit_bias: Union[None, Mapping[int, float], Lists] = None,
    bitmask: Optional[torch.Tensor] = None,
    softcap: float = 0.0,
    seed: Union[None, int, torch.Tensor] = None,
    position: Union[None, int, torch.Tensor] = None,
    draws: int = 1,
    first_draw: int = 0,
    replacement: bool = True,
    preset: str = "vllm",
    logprobs: Optional[int] = None,
    processed_logprobs: bool = False,
    kept: bool = False,
    invalid_token: int = -1,
    most_top_k: int = 0,
    generator: Optional[torch.Generator] = None,
) -> SampleResult:
    """Draw tokens for each row of logits, in one launch on a GPU.

    A token is a function of the row's logits, the parameters, the seed, the position and the number of the draw alone:
    the same on the CPU and on every GPU, in any batch. ``docs/semantics.md`` of the project is the whole contract.

    Every parameter from ``temperature`` to ``presence_penalty``, ``seed`` and ``position`` is a number, or a tensor on the
    device of the logits with a value for each row. Tensors are read when the kernel runs, so that one captured graph serves
    every step. In place are read float32, int32 for ``top_k``, and int64 for ``seed`` and ``position``; other dtypes are
    converted on the device. A tensor without dimensions serves all rows.

    Args:
        logits: [..., vocab] of float32, float16 or bfloat16, on the CPU or on an NVIDIA GPU of compute capability 8.0 or
            later; vocab is at most 2^20. Rows that lie one stride apart, which may be 0, are read where they are. They
            are not modified.
        temperature: divides the logits; 0 takes the largest. In [0, +Inf).
        top_k: keeps so many of the largest; None, below 1 and vocab or more keep all. A top_k of at most 1,024 is fast.
        top_p: keeps the fewest likely tokens that hold this mass, in (0, 1].
        min_p: keeps tokens of at least this share of the largest probability, in [0, 1].
        typical_p: keeps this mass of the most typical tokens, in (0, 1].
        top_n_sigma: keeps what is within so many standard deviations of the largest logit; 0 keeps all.
        xtc_probability, xtc_threshold: how often, in [0, 1], all tokens of at least this probability are dropped but the
            least likely of them. A threshold above 0.5 drops nothing.
        repetition_penalty: positive logits of ids in token_counts are divided by it, others multiplied. Above 0.
        frequency_penalty: subtracted from them for each occurrence in the output.
        presence_penalty: subtracted from those that occur in the output.
        token_counts: (ids, counts), integers of [..., n] or [n]: each id once, and how often it occurs in the output: 0 for one of the
            prompt alone. Ids outside the vocabulary, as -1, stand for none. :func:`count_tokens` makes them.
        logit_bias: {id: bias} for all rows, which is copied to the device; or (ids, biases) of [..., n] or [n]. A bias of
            -Inf bans. Ids as in token_counts.
        bitmask: int32 of [..., words] or [words], 32 ids a word from the least significant bit on, as xgrammar makes them: 1 allows. Ids
            past its end are allowed.
        softcap: cap * tanh(logit / cap), before all edits; 0: none.
        seed: of the random numbers, from -2^63 to 2^64-1. One seed for the batch gives row i the draws i * draws to
            (i + 1) * draws - 1, so that equal rows get different tokens; with a seed for each row, draws begin at 0.
        position: of the token in its sequence, the other half of what decides a random number; 0 if it is not given.
        draws: tokens of a row, up to 2^24.
        first_draw: the number of a row's first draw.
        replacement: whether draws may take the same token again.
        preset: "vllm": bitmask, bias, penalties, temperature, min_p, top_k, top_p, typical_p, top_n_sigma, xtc; below a
            temperature of 1e-5 the largest logit. Or "nanochat": top_k, temperature, top_p, min_p and the rest; the softcap is
            applied to what top_k keeps.
        logprobs: how many of the most likely tokens to report beside each row's own, up to 1,024; 0 is the tokens' own alone, and
            None reports nothing. They are within 1e-6 times the larger of 1 and their magnitude, and natural.
        processed_logprobs: whether logprobs are of what all steps keep, instead of the logits as they came.
            On a GPU these, typical_p, top_n_sigma and xtc are for rows with a top_k for which there is room: of at most 1,024.
        kept: whether to report the kept set of each row with its probabilities, as training on what was sampled wants it. There is room
            for top_k tokens, or most_top_k of them, and for 1,024 at most.
        invalid_token: what stands where there is no token. -1 as an index into an embedding is an assertion of the device
            that fails; the status says why.
        most_top_k: the largest value of a top_k that is a tensor: smaller is faster. It changes no token.
        generator: where seed and position come from if seed is not given; None is the default generator of the device. One
            of a GPU has its seed and, as the position, its offset, which the call advances without a wait. From one of the
            CPU a seed is drawn.

    Nothing has a gradient. The call works on the current stream and does not wait for the device. What is wrong with a row
    is told by its status, and leaves the others as they are. Under :func:`torch.compile` and the modes of torch it is the
    operator ``torch.ops.aikf.sample``.

    Raises:
        TypeError: logits or another argument are of a type or dtype that is none of those above.
        ValueError: a number is out of its range; the message has both.
        NotImplementedError: the preset is of the Go package alone; a GPU has a step behind a top_k alone.
        RuntimeError: a tensor has another shape or device; the generator is of another device than the logits, or would be frozen in a
            CUDA graph that is captured: give seed= and position= then.
    """
    if not isinstance(logits, torch.Tensor):
        raise TypeError(f"aikf.sample: logits must be Tensor, not {type(logits).__name__}")
    if logits.dim() < 1:
        raise ValueError("aikf.sample: logits have no dimension, want [..., vocab]")
    _check_preset("sample", preset)
    _in_range("draws", draws, 1, MOST_DRAWS)
    _in_range("first_draw", first_draw, 0, 2**32 - 1)
    _in_range("invalid_token", invalid_token, -(2**31), 2**31 - 1)
    _in_range("most_top_k", most_top_k, 0, 2**31 - 1)
    if logprobs is not None:
        _in_range("logprobs", logprobs, 0, min(MOST_LOGPROBS, logits.shape[-1]))
    reals, rows = [], []
    given = (
        temperature, top_p, min_p, typical_p, top_n_sigma, xtc_probability, xtc_threshold, repetition_penalty, frequency_penalty,
        presence_penalty,
    )  # fmt: skip
    for (name, off), value in zip(REALS, given):
        row = None
        if type(value) is not float:
            value, row = _parameter(name, value, off, logits, torch.float32)
            value = _real(name, value)
        reals.append(value)
        rows.append(row)
    reals.append(_real("softcap", softcap))
    top_k, row_k = _parameter("top_k", top_k, 0, logits, torch.int32)
    rows.insert(1, row_k)
    seed, position, seed_rows, shared = _numbers("sample", seed, position, generator, logits)
    rows.extend(seed_rows)
    edits = (
        *_bitmask(bitmask, logits),
        *_bias(logit_bias, logits),
        *_counts(token_counts, logits, reals[PENALTIES:], rows[PENALTIES + 1 :]),
    )
    arguments = (
        logits, rows, edits, reals, _top_k("sample", "top_k", top_k), seed, position, generator, draws, first_draw, shared, bool(replacement), preset == "nanochat", -1 if logprobs is None else logprobs,
        bool(processed_logprobs), invalid_token, most_top_k, bool(kept),
    )  # fmt: skip
    if not _is_compiling() and _sampler.quiet(logits):
        return SampleResult(*run(*arguments))
    return SampleResult(*[answer if there else None for answer, there in zip(torch.ops.aikf.sample(*arguments), wanted(arguments[13], kept))])


def _check_preset(call: str, preset: str) -> None:
    if preset in OTHER_PRESETS:
        raise NotImplementedError(f"aikf.{call}: preset {preset!r} is of the Go package alone, want 'vllm' or 'nanochat'")
    if preset not in PRESETS:
        raise ValueError(f"aikf.{call}: preset {preset!r}, want 'vllm' or 'nanochat'")


def _numbers(call: str, seed: Any, position: Any, generator: Any, logits: torch.Tensor):
    """Return seed and position as numbers, the former None if a generator has both, then as tensors, and whether one seed serves all rows."""
    if seed is None and position is not None:
        raise ValueError(f"aikf.{call}: position without seed; a generator has both")
    if seed is not None and generator is not None:
        raise ValueError(f"aikf.{call}: seed and generator, want one of them")
    if type(seed) is int and (type(position) is int or position is None) and 0 <= seed < 2**63 and 0 <= (position or 0) < 2**63:
        return seed, position or 0, (None, None), True
    shared = not (isinstance(seed, torch.Tensor) and seed.dim() > 0)
    seed_number, seed_row = _parameter("seed", seed, 0, logits, torch.int64, call)
    number, row = _parameter("position", position, 0, logits, torch.int64, call)
    return None if seed is None else _wrapped("seed", seed_number, call), _wrapped("position", number, call), [seed_row, row], shared


def _top_k(call: str, name: str, value: Any) -> int:
    return max(0, min(_integer(name, value, call), 2**31 - 1))


def _in_range(name: str, value: Any, least: int, most: int, call: str = "sample") -> None:
    if not least <= _integer(name, value, call) <= most:
        raise ValueError(f"aikf.{call}: {name} = {value} is outside {least} to {most}")


def _integer(name: str, value: Any, call: str = "sample") -> int:
    if isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool):
        return value  # type: ignore[return-value]
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise TypeError(f"aikf.{call}: {name} must be int, not {type(value).__name__}")


def _real(name: str, value: Any, call: str = "sample") -> float:
    if not isinstance(value, (bool, str, bytes, bytearray)):  # of the latter, float() reads a number
        try:
            return float(value)
        except TypeError:
            pass
    raise TypeError(f"aikf.{call}: {name} must be float or Tensor, not {type(value).__name__}")


def _wrapped(name: str, value: Any, call: str) -> int:
    """Return 64 bits as torch's operators take them."""
    value = _integer(name, value, call)
    if not -(2**63) <= value < 2**64:
        raise ValueError(f"aikf.{call}: {name} = {value} is outside -2^63 to 2^64-1")
    return value - 2**64 if value >= 2**63 else value


def _parameter(
    name: str, value: Any, off: Any, logits: torch.Tensor, dtype: torch.dtype, call: str = "sample"
) -> Tuple[Any, Optional[torch.Tensor]]:
    """Return a parameter as a number and, if each row has its own, the tensor of these."""
    if value is None:
        return off, None
    if not isinstance(value, torch.Tensor):
        return value, None
    if value.dim() == 0 and value.device.type == "cpu" and logits.device.type != "cpu":
        return value.item(), None
    lead = logits.shape[:-1]
    if value.dtype == dtype and value.shape == lead and value.device == logits.device and value.is_contiguous():
        return off, value
    if value.dtype == torch.bool or value.is_complex() or (dtype != torch.float32 and value.is_floating_point()):
        raise TypeError(f"aikf.{call}: {name} has dtype {value.dtype}, want {dtype}")
    if value.device != logits.device:
        raise RuntimeError(f"aikf.{call}: {name} is on {value.device} and the logits are on {logits.device}")
    if value.dim() and value.shape != lead:
        raise RuntimeError(f"aikf.{call}: {name} has shape {list(value.shape)}, want that of the rows, {list(lead)}")
    if dtype == torch.int32 and value.dtype != dtype:
        value = value.to(torch.int64).clamp(-1, 2**31 - 1)  # a narrow integer has no place for the bound
    return off, value.detach().to(dtype).expand(lead).contiguous()


def _shape(lead: torch.Size, last: str) -> str:
    """Return a shape whose last dimension may have any size, for an error."""
    return "[" + ", ".join([*map(str, lead), last]) + "]"


def _list(name: str, value: torch.Tensor, logits: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a list of each row as [..., n] without gaps."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"aikf.sample: {name} must be Tensor, not {type(value).__name__}")
    if value.dtype == torch.bool or value.is_complex() or (dtype == torch.int32 and value.is_floating_point()):
        raise TypeError(f"aikf.sample: {name} has dtype {value.dtype}, want {dtype}")
    if value.device != logits.device:
        raise RuntimeError(f"aikf.sample: {name} is on {value.device} and the logits are on {logits.device}")
    lead = logits.shape[:-1]
    if value.dim() != 1 and value.shape[:-1] != lead:
        raise RuntimeError(f"aikf.sample: {name} has shape {list(value.shape)}, want {_shape(lead, 'n')} or [n]")
    value = value.detach()
    if dtype == torch.int32 and value.dtype.itemsize > 4:
        value = value.to(torch.int64).clamp(-(2**31), 2**31 - 1)  # an id beyond 32 bits is none of the vocabulary, and no other one
    return value.to(dtype).expand(*lead, value.shape[-1]).contiguous()


def _pair(name: str, value: Any, names: Tuple[str, str], logits: torch.Tensor, dtype: torch.dtype) -> Tuple[torch.Tensor, torch.Tensor]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"aikf.sample: {name} must be a pair of {names[0]} and {names[1]}, not {type(value).__name__}")
    ids, values = (_list(f"{name} {n}", v, logits, t) for n, v, t in zip(names, value, (torch.int32, dtype)))
    if ids.shape != values.shape:
        raise RuntimeError(f"aikf.sample: {name} has {ids.shape[-1]} {names[0]} and {values.shape[-1]} {names[1]}")
    return ids, values


def _bias(bias: Any, logits: torch.Tensor) -> Tuple[Optional[torch.Tensor], Optional[torch.Tensor]]:
    if bias is None:
        return None, None
    if isinstance(bias, Mapping):
        for i, value in bias.items():
            _in_range("logit_bias id", i, 0, logits.shape[-1] - 1)
            if not _real("logit_bias", value) < float("inf"):
                raise ValueError(f"aikf.sample: logit_bias of {i} = {value} is outside [-Inf, +Inf)")
        bias = (
            torch.tensor(list(bias.keys()), dtype=torch.int32, device=logits.device),
            torch.tensor(list(bias.values()), dtype=torch.float32, device=logits.device),
        )
    return _pair("logit_bias", bias, ("ids", "biases"), logits, torch.float32)


def _counts(counts: Any, logits: torch.Tensor, penalties: Any, rows: Any) -> Tuple[Optional[torch.Tensor], Optional[torch.Tensor]]:
    if counts is not None:
        ids, counts = _pair("token_counts", counts, ("ids", "counts"), logits, torch.int32)
        if ids.shape[-1] == 0 and any(row is not None for row in rows[: len(penalties)]):
            # Penalties of rows are checked where tokens are counted: one that is none.
            ids, counts = (torch.nn.functional.pad(lists, (0, 1), value=-1) for lists in (ids, counts))
        return ids, counts
    for (name, off), value, row in zip(REALS[PENALTIES:], penalties, rows):
        if value != off or row is not None:
            raise ValueError(f"aikf.sample: {name} without token_counts")
    return None, None


def _bitmask(bitmask: Optional[torch.Tensor], logits: torch.Tensor) -> Tuple[Optional[torch.Tensor]]:
    if bitmask is None:
        return (None,)
    if not isinstance(bitmask, torch.Tensor):
        raise TypeError(f"aikf.sample: bitmask must be Tensor, not {type(bitmask).__name__}")
    if bitmask.dtype != torch.int32:
        raise TypeError(f"aikf.sample: bitmask has dtype {bitmask.dtype}, want torch.int32")
    if bitmask.device != logits.device:
        raise RuntimeError(f"aikf.sample: bitmask is on {bitmask.device} and the logits are on {logits.device}")
    lead = logits.shape[:-1]
    if bitmask.dim() != 1 and bitmask.shape[:-1] != lead:
        raise RuntimeError(f"aikf.sample: bitmask has shape {list(bitmask.shape)}, want {_shape(lead, 'words')} or [words]")
    if bitmask.dim() > 2:
        bitmask = bitmask.flatten(0, -2)
    if bitmask.stride(-1) != 1 or (bitmask.dim() == 2 and 0 < bitmask.stride(0) < bitmask.shape[1]):
        bitmask = bitmask.contiguous()
    return (bitmask,)


def wanted(logprobs: int, kept: bool) -> Tuple[bool, ...]:
    """Return which answers are asked for, in their order."""
    return (True, True, logprobs >= 0, logprobs >= 0, logprobs > 0, logprobs > 0, kept, kept, kept)


def room(logits: torch.Tensor, top_k: int) -> int:
    """Return how many tokens of a row there is room for, if so many are left by top_k, or 0 if that is unknown."""
    vocab = logits.shape[-1]
    return min(top_k if 0 < top_k < MOST_KEPT else MOST_KEPT, vocab)


def shapes(logits: torch.Tensor, draws: int, logprobs: int, most: int):
    """Return the shape and dtype of each answer."""
    lead = list(logits.shape[:-1])
    tokens = lead if draws == 1 else [*lead, draws]
    return (
        (tokens, torch.int64), (lead, torch.uint8), (tokens, torch.float32), (tokens, torch.int32), ([*lead, logprobs], torch.int32),
        ([*lead, logprobs], torch.float32), ([*lead, most], torch.int32), (lead, torch.int32), ([*lead, most], torch.float32),
    )  # fmt: skip


def run(
    logits, rows, edits, reals, top_k, seed, position, generator, draws, first_draw, shared, replacement, nanochat, logprobs, processed,
    invalid_token, most_top_k, kept,
):  # fmt: skip
    """Sample, whatever of torch is on, and return the answers; None for what is not asked for."""
    device, most = logits.device, most_top_k if rows[1] is not None else top_k
    answers = [
        torch.empty(shape, dtype=dtype, device=device) if there else None
        for (shape, dtype), there in zip(shapes(logits, draws, logprobs, room(logits, most) if kept else 0), wanted(logprobs, kept))
    ]
    if kept:
        answers[6].fill_(-1)
        answers[8].zero_()
    if seed is None:
        seed, position = _sampler.numbers(logits, generator, "sample")
    bitmask, bias_ids, _, penalty_ids, _ = edits
    words = 0 if bitmask is None else min(bitmask.shape[-1], (logits.shape[-1] + 31) // 32)
    numbers = (
        *reals, top_k, seed % 2**64, position % 2**64, bitmask.stride(0) if bitmask is not None and bitmask.dim() == 2 else 0, words,
        0 if bias_ids is None else bias_ids.shape[-1], 0 if penalty_ids is None else penalty_ids.shape[-1], draws, first_draw,
        draws if shared else 0, replacement, nanochat, invalid_token, max(logprobs, 0), processed, most,
    )  # fmt: skip
    given = (tuple(rows), tuple(edits), tuple(answers), numbers)
    if not _sampler.sample(logits, *given):
        _sampler.sample(logits.resolve_neg().contiguous(), *given)
    return answers


def run_all(*arguments):
    """Sample, and return all answers, empty if they are not asked for: what the dispatcher calls."""
    given = zip(run(*arguments), fake(*arguments))
    return tuple(torch.empty(like.shape, dtype=like.dtype, device=like.device) if answer is None else answer for answer, like in given)


def fake(logits, *rest):
    """Return what the operator returns, without contents."""
    rows, top_k, draws, logprobs, most_top_k, kept = rest[0], rest[3], rest[7], rest[12], rest[15], rest[16]
    most = room(logits, most_top_k if rows[1] is not None else top_k) if kept else 0
    answers = zip(shapes(logits, draws, logprobs, most), wanted(logprobs, kept))
    return tuple(logits.new_empty(shape if there else [0], dtype=dtype) for (shape, dtype), there in answers)


def _generator(generator: Optional[torch.Generator], ordinal: int, call: str) -> torch.Generator:
    """Return the generator, checked, or the default one of the device with that ordinal; -1 is the CPU."""
    if generator is None:
        return torch.default_generator if ordinal < 0 else torch.cuda.default_generators[ordinal]
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"aikf.{call}: generator must be torch.Generator or None, not {type(generator).__name__}")
    want = torch.device("cpu") if ordinal < 0 else torch.device("cuda", ordinal)
    # One made for "cuda" does not say of which GPU it is.
    if generator.device.type != want.type or (ordinal >= 0 and generator.device.index not in (None, ordinal)):
        raise RuntimeError(f"aikf.{call}: a generator of {generator.device} for logits on {want}")
    return generator


def draw_seed(generator: torch.Generator) -> int:
    """Return the next 64 bits of a generator of the CPU."""
    return torch.empty((), dtype=torch.int64, device="cpu").random_(-(2**63), None, generator=generator).item()


def sample_logits(
    logits: torch.Tensor,
    *,
    top_k: Optional[int] = None,
    temperature: float = 1.0,
    generator: Optional[torch.Generator] = None,
    num_samples: int = 1,
    replacement: bool = True,
    backend: str = "auto",
) -> torch.Tensor:
    """Draw tokens for each row: the top_k largest logits, the temperature, softmax over these, num_samples draws.

    Args:
        logits: [rows, vocab], as :func:`sample` takes them.
        top_k: at least 1; None, and vocab or more, keep all.
        temperature: 0 takes the largest logit.
        generator: as in :func:`sample`.
        num_samples: tokens of a row.
        replacement: whether the same token may come again. Without it, -1 stands where no token is left.
        backend: "auto", or "cuda", which wants logits on a GPU and has the aliases "triton" and "cutedsl"; "torch" is made of torch's own
            operators, with other tokens.

    Returns int64: [rows] for one sample, else [rows, num_samples].

    Raises:
        ValueError: logits are not of two dimensions; temperature < 0; num_samples < 1; top_k < 1; an unknown backend.
        TypeError, RuntimeError: as :func:`sample`.
    """
    if backend != "auto":
        if backend not in BACKENDS:
            raise ValueError(f"aikf.sample_logits: backend {backend!r}, want one of {', '.join(BACKENDS)}")
        if backend == "torch":
            return _torch_logits(logits, top_k, temperature, generator, num_samples, replacement)
        if isinstance(logits, torch.Tensor) and logits.device.type != "cuda":
            raise ValueError(f"aikf.sample_logits: backend {backend!r} for logits on {logits.device}")
    if _is_compiling():
        return _logits(logits, top_k, temperature, generator, num_samples, replacement)
    return _short_logits(logits, top_k, temperature, generator, num_samples, replacement)


def _check_logits(logits, top_k, temperature, num_samples):
    if not isinstance(logits, torch.Tensor):
        raise TypeError(f"aikf.sample_logits: logits must be Tensor, not {type(logits).__name__}")
    if logits.dim() != 2:
        raise ValueError(f"aikf.sample_logits: logits of {logits.dim()} dimensions, want [rows, vocab]")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"aikf.sample_logits: temperature = {temperature} is outside [0, +Inf)")
    if not 1 <= num_samples <= MOST_DRAWS:
        raise ValueError(f"aikf.sample_logits: num_samples = {num_samples} is outside 1 to {MOST_DRAWS}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"aikf.sample_logits: top_k = {top_k} is less than 1")


def _logits(logits, top_k, temperature, generator, num_samples, replacement):
    _check_logits(logits, top_k, temperature, num_samples)
    return sample(
        logits, top_k=top_k, temperature=temperature, generator=generator, draws=num_samples, replacement=replacement, preset="nanochat"
    ).tokens


def _torch_logits(logits, top_k, temperature, generator, num_samples, replacement):
    """Sample with torch's own operators."""
    _check_logits(logits, top_k, temperature, num_samples)
    if temperature == 0:
        best = logits.argmax(-1)
        return best if num_samples == 1 else best.unsqueeze(1).expand(-1, num_samples).clone()
    if top_k is None or top_k >= logits.shape[1]:
        tokens = torch.multinomial((logits.float() / temperature).softmax(-1), num_samples, replacement, generator=generator)
    else:
        values, indices = logits.float().topk(top_k)
        places = torch.multinomial((values / temperature).softmax(-1), num_samples, replacement, generator=generator)
        tokens = indices.gather(1, places)
    return tokens.squeeze(1) if num_samples == 1 else tokens


def next_token(logits, generator, temperature, top_k):
    """Be nanochat.sample_next_token by way of sample."""
    if not isinstance(logits, torch.Tensor):
        raise TypeError(f"aikf.nanochat.sample_next_token: logits must be Tensor, not {type(logits).__name__}")
    if logits.dim() != 2:
        raise ValueError(f"aikf.nanochat.sample_next_token: logits of {logits.dim()} dimensions, want [rows, vocab]")
    tokens = sample(logits, top_k=top_k, temperature=temperature, generator=generator, preset="nanochat").tokens
    return tokens.unsqueeze(1)


def _dispatch(call: str, arguments: Tuple[Any, ...]) -> torch.Tensor:
    """Answer a short call that is not short."""
    return (_logits if call == "sample_logits" else next_token)(*arguments)


def new_sampler(selector: _native.Selector) -> _native.Sampler:
    """Return what sampling is made of, beside the selector."""
    return _native.Sampler(
        selector=selector,
        capturing=getattr(torch._C, "_cuda_isCurrentStreamCapturing", bool),
        generator=_generator,
        draw_seed=draw_seed,
        dispatch=_dispatch,
    )


_sampler = new_sampler(_torch._selector)
_short_logits = _sampler.logits
short_next_token = _sampler.next_token


class VerifyResult(NamedTuple):
    """What :func:`speculative_verify` returns."""

    tokens: torch.Tensor  #: int64, [sequences, drafts + 1]: those that stand, one more, and invalid_token
    accepted: torch.Tensor  #: int32, [sequences]: how many drafted tokens stand
    status: torch.Tensor  #: uint8, [sequences]: a :class:`Status` for each sequence


def speculative_verify(
    logits: torch.Tensor,
    drafted: torch.Tensor,
    *,
    draft_logits: Optional[torch.Tensor] = None,
    draft_probabilities: Optional[torch.Tensor] = None,
    drafted_count: Optional[torch.Tensor] = None,
    temperature: Number = 1.0,
    top_k: Union[None, int, torch.Tensor] = None,
    top_p: Number = 1.0,
    min_p: Number = 0.0,
    softcap: float = 0.0,
    preset: str = "vllm",
    draft_temperature: Optional[Number] = None,
    draft_top_k: Union[None, int, torch.Tensor] = None,
    draft_top_p: Optional[Number] = None,
    draft_min_p: Optional[Number] = None,
    draft_softcap: Optional[float] = None,
    draft_preset: Optional[str] = None,
    seed: Union[None, int, torch.Tensor] = None,
    position: Union[None, int, torch.Tensor] = None,
    first_draw: int = 0,
    invalid_token: int = -1,
    most_top_k: int = 0,
    most_draft_top_k: int = 0,
    generator: Optional[torch.Generator] = None,
) -> VerifyResult:
    """Accept as many drafted tokens of each sequence as the law of the logits lets stand, and draw one more.

    All of them then have the law of the logits, whatever drafted them: arXiv 2211.17192 and 2302.01318, in exact integers, in
    one launch on a GPU. Row i of a sequence is sampled at its position and i more.

    Args:
        logits: the target's, [sequences, drafts + 1, vocab], as :func:`sample` takes them: a row for each drafted token and the
            one behind them all.
        drafted: integers, [sequences, drafts].
        draft_logits: [sequences, drafts, vocab] of the dtype of logits: what the tokens were drafted from, with the draft's parameters. Or:
        draft_probabilities: float32, [sequences, drafts, vocab], each from 0 to 1, taken at 2^-42.
        drafted_count: integers, [sequences]: how many drafted tokens of each sequence there are; None: all. What lies behind
            them is not read.
        temperature, top_k, top_p, min_p, softcap, preset: of the target, as in :func:`sample`; tensors have one value for each sequence.
        draft_temperature, draft_top_k, draft_top_p, draft_min_p, draft_softcap, draft_preset: of the draft; what is not given
            is the target's.
        seed, position, first_draw, generator: as in :func:`sample`, for sequences in place of rows. With one seed each sequence has a draw of
            its own.
        invalid_token: what stands behind the last token of a sequence.
        most_top_k, most_draft_top_k: the largest value of a top_k that is a tensor.

    Nothing has a gradient. What is wrong with a row at which the chain arrives is told by the status of its sequence: the
    tokens before it stand. A parameter in a tensor, a count, a drafted token or a probability out of its range is a bad parameter of the whole
    sequence, of which no token then stands. As an operator it is ``torch.ops.aikf.speculative_verify``.

    Raises:
        TypeError, ValueError, NotImplementedError, RuntimeError: as :func:`sample`.
    """
    call = "speculative_verify"
    for name, value in (("logits", logits), ("drafted", drafted)):
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"aikf.{call}: {name} must be Tensor, not {type(value).__name__}")
    if logits.dim() != 3 or drafted.dim() != 2 or drafted.shape != (logits.shape[0], logits.shape[1] - 1):
        raise ValueError(
            f"aikf.{call}: logits of {list(logits.shape)} and drafted of {list(drafted.shape)}, "
            "want [sequences, drafts + 1, vocab] and [sequences, drafts]"
        )
    if logits.shape[1] - 1 > MOST_DRAFTS:
        raise ValueError(f"aikf.{call}: drafts = {logits.shape[1] - 1} is outside 0 to {MOST_DRAFTS}")
    sequences, _, vocab = logits.shape
    _check_preset(call, preset)
    draft_preset = preset if draft_preset is None else draft_preset
    _check_preset(call, draft_preset)
    for name, value in (("first_draw", first_draw), ("most_top_k", most_top_k), ("most_draft_top_k", most_draft_top_k)):
        _in_range(name, value, 0, 2**32 - 1 if name == "first_draw" else 2**31 - 1, call)
    _in_range("invalid_token", invalid_token, -(2**31), 2**31 - 1, call)
    if (draft_logits is None) == (draft_probabilities is None) and drafted.shape[1] > 0:
        raise ValueError(f"aikf.{call}: draft_logits or draft_probabilities, want one of them")
    for name, value, dtype in (("draft_logits", draft_logits, logits.dtype), ("draft_probabilities", draft_probabilities, torch.float32)):
        if value is None:
            continue
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"aikf.{call}: {name} must be Tensor, not {type(value).__name__}")
        if value.dtype != dtype:
            raise TypeError(f"aikf.{call}: {name} has dtype {value.dtype}, want {dtype}")
        if value.shape != (*drafted.shape, vocab):
            raise RuntimeError(f"aikf.{call}: {name} has shape {list(value.shape)}, want {[*drafted.shape, vocab]}")
        if value.device != logits.device:
            raise RuntimeError(f"aikf.{call}: {name} is on {value.device} and the logits are on {logits.device}")
    if drafted.device != logits.device:
        raise RuntimeError(f"aikf.{call}: drafted is on {drafted.device} and the logits are on {logits.device}")
    if drafted.dtype == torch.bool or drafted.is_floating_point() or drafted.is_complex():
        raise TypeError(f"aikf.{call}: drafted has dtype {drafted.dtype}, want torch.int64 or torch.int32")
    if drafted.dtype != torch.int32:
        drafted = drafted.to(torch.int64)
    each = logits[:, 0]  # as many rows as there are sequences
    or_else = lambda value, other: other if value is None else value  # noqa: E731
    target, target_rows = _law(call, "", each, temperature, top_k, top_p, min_p, softcap)
    draft, draft_rows = _law(
        call, "draft_", each, or_else(draft_temperature, temperature), or_else(draft_top_k, top_k), or_else(draft_top_p, top_p),
        or_else(draft_min_p, min_p), or_else(draft_softcap, softcap),
    )  # fmt: skip
    count, count_row = _parameter("drafted_count", drafted_count, None, each, torch.int32, call)
    if count is not None:
        raise TypeError(f"aikf.{call}: drafted_count must be Tensor, not {type(count).__name__}")
    seed, position, seed_rows, shared = _numbers(call, seed, position, generator, each)
    arguments = (
        logits, drafted.contiguous(), draft_logits, draft_probabilities, count_row, [*target_rows, *draft_rows, *seed_rows], target[:4], draft[:4],
        target[4], draft[4], preset == "nanochat", draft_preset == "nanochat", seed, position, generator, first_draw, shared, invalid_token,
        most_top_k, most_draft_top_k,
    )  # fmt: skip
    if not _is_compiling() and _sampler.quiet(logits):
        return VerifyResult(*run_verify(*arguments))
    return VerifyResult(*torch.ops.aikf.speculative_verify(*arguments))


def _law(call, side, each, temperature, top_k, top_p, min_p, softcap):
    """Return the numbers of a law, top_k last, and its parameters of each sequence."""
    given = (("temperature", temperature, 1.0), ("top_p", top_p, 1.0), ("min_p", min_p, 0.0))
    found = [_parameter(side + name, value, off, each, torch.float32, call) for name, value, off in given]
    k, row_k = _parameter(f"{side}top_k", top_k, 0, each, torch.int32, call)
    reals = [_real(side + name, value, call) for (name, _, _), (value, _) in zip(given, found)]
    rows = [found[0][1], row_k, found[1][1], found[2][1]]
    return [*reals, _real(f"{side}softcap", softcap, call), _top_k(call, f"{side}top_k", k)], rows


def run_verify(
    logits, drafted, draft_logits, draft_probabilities, count, rows, target, draft, top_k, draft_top_k, nanochat, draft_nanochat, seed, position,
    generator, first_draw, shared, invalid_token, most_top_k, most_draft_top_k,
):  # fmt: skip
    """Verify, whatever of torch is on: what the dispatcher calls."""
    sequences, drafts = drafted.shape
    answers = tuple(torch.empty(shape, dtype=dtype, device=logits.device) for shape, dtype in verify_shapes(drafted))
    workspace = None
    if logits.device.type != "cpu":
        workspace = torch.zeros(sequences, dtype=torch.int64, device=logits.device)
    if seed is None:
        seed, position = _sampler.numbers(logits, generator, "speculative_verify")
    if draft_probabilities is not None:
        draft_probabilities = draft_probabilities.resolve_neg().contiguous()
    given = (
        tuple(rows),
        (draft_probabilities, drafted, count, *answers, workspace),
        (*target, top_k, nanochat, most_top_k if rows[1] is not None else top_k),
        (*draft, draft_top_k, draft_nanochat, most_draft_top_k if rows[5] is not None else draft_top_k),
        (seed % 2**64, position % 2**64, sequences, drafts, drafted.element_size(), first_draw, shared, invalid_token),
    )
    if not _sampler.verify(logits, draft_logits, *given):
        arranged = [None if x is None else x.resolve_neg().contiguous() for x in (logits, draft_logits)]
        _sampler.verify(*arranged, *given)
    return answers


def verify_shapes(drafted: torch.Tensor):
    """Yield the shape and dtype of each answer."""
    sequences, drafts = drafted.shape
    yield [sequences, drafts + 1], torch.int64
    yield [sequences], torch.int32
    yield [sequences], torch.uint8


def count_tokens(output: torch.Tensor, prompt: Optional[torch.Tensor] = None) -> Lists:
    """Return (ids, counts) for token_counts of :func:`sample`: each id of a sequence once, and how often it is in the output.

    Args:
        output: integers, [..., n]: the ids that were generated; those below 0, as padding, and from 2^31 on stand for none.
        prompt: integers, [..., m]: the ids before them, which repetition_penalty counts too.

    Both are int32, [..., m + n]; the place of an id that came before holds -1. Nothing waits for the device, and shapes are
    fixed, so that a CUDA graph can have it.
    """
    output = output.to(torch.int64)
    every = output if prompt is None else torch.cat([prompt.to(torch.int64), output], -1)
    every, output = every.sort(-1).values, output.sort(-1).values
    first = torch.cat([torch.ones_like(every[..., :1], dtype=torch.bool), every[..., 1:] != every[..., :-1]], -1)
    counts = torch.searchsorted(output, every, right=True) - torch.searchsorted(output, every)
    return every.where(first & (every >= 0) & (every < 2**31), -1).to(torch.int32), counts.to(torch.int32)


def apply_bitmask(
    logits: torch.Tensor, bitmask: torch.Tensor, *, vocab_size: Optional[int] = None, indices: Optional[torch.Tensor] = None
) -> torch.Tensor:
    """Return the logits with -Inf for each id whose bit is 0. :func:`apply_bitmask_` writes to the logits instead.

    ``sample(logits, bitmask=...)`` needs neither: it masks while it reads.

    Args:
        logits: [rows, vocab] or [vocab] of a floating dtype.
        bitmask: int32 [rows, words] or [words], 32 ids a word from the least significant bit on, which serves all rows if
            it has one. As in xgrammar's apply_token_bitmask_inplace; ids past its end stay.
        vocab_size: how many ids are masked, from 0 on; None: all of the mask.
        indices: the rows that are masked, of both; None: all.

    Raises:
        TypeError: logits or bitmask are no tensor, bitmask is not int32, or logits are not floating.
        ValueError: vocab_size is below 0.
        RuntimeError: shapes or devices do not fit each other.
    """
    copy = logits.clone() if isinstance(logits, torch.Tensor) else logits
    return apply_bitmask_(copy, bitmask, vocab_size=vocab_size, indices=indices)


def apply_bitmask_(
    logits: torch.Tensor, bitmask: torch.Tensor, *, vocab_size: Optional[int] = None, indices: Optional[torch.Tensor] = None
) -> torch.Tensor:
    """Write -Inf to the logits of each id whose bit is 0, and return them: :func:`apply_bitmask` in place."""
    for name, value in (("logits", logits), ("bitmask", bitmask)):
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"aikf.apply_bitmask: {name} must be Tensor, not {type(value).__name__}")
    if vocab_size is not None and _integer("vocab_size", vocab_size, "apply_bitmask") < 0:
        raise ValueError(f"aikf.apply_bitmask: vocab_size = {vocab_size} is less than 0")
    if bitmask.dtype != torch.int32:
        raise TypeError(f"aikf.apply_bitmask: bitmask has dtype {bitmask.dtype}, want torch.int32")
    if not logits.is_floating_point():
        raise TypeError(f"aikf.apply_bitmask: logits have dtype {logits.dtype}, want a floating one")
    if bitmask.device != logits.device:
        raise RuntimeError(f"aikf.apply_bitmask: bitmask is on {bitmask.device} and the logits are on {logits.device}")
    if logits.dim() not in (1, 2) or bitmask.dim() not in (1, 2) or (logits.dim() == 1 and bitmask.dim() == 2 and len(bitmask) != 1):
        raise RuntimeError(f"aikf.apply_bitmask: bitmask of {list(bitmask.shape)} for logits of {list(logits.shape)}")
    rows, mask = logits.view(-1, logits.shape[-1]), bitmask.view(-1, bitmask.shape[-1])
    if len(mask) not in (1, len(rows)):
        raise RuntimeError(f"aikf.apply_bitmask: bitmask of {list(bitmask.shape)} for logits of {list(logits.shape)}")
    size = min(rows.shape[1], 32 * mask.shape[1])
    if vocab_size is not None:
        size = min(size, vocab_size)
    bits = torch.arange(32, dtype=torch.int32, device=logits.device)
    banned = ((mask.unsqueeze(-1) >> bits) & 1).eq(0).flatten(1)[:, :size]
    part = rows[:, :size]
    if indices is None:
        part.masked_fill_(banned, float("-inf"))
    else:
        indices = torch.as_tensor(indices, device=logits.device)
        part[indices] = part[indices].masked_fill(banned if len(banned) == 1 else banned[indices], float("-inf"))
    return logits


from . import _sample_operator  # noqa: E402,F401  registers torch.ops.aikf.sample
