"""The answer by a stable sort, and rows to ask for."""

import torch

import aikf

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def bits(x: torch.Tensor) -> torch.Tensor:
    """Return the bits of floats as integers, which compare as they are."""
    return x.resolve_neg().contiguous().view(torch.int32 if x.dtype == torch.float32 else torch.int16)


def expected(x: torch.Tensor, k: int, dim: int = -1, largest: bool = True):
    """Return the bits of the values, and the indices, on the CPU."""
    x = x.detach().cpu()
    if x.dim() == 0:
        return bits(x), torch.zeros((), dtype=torch.int64)
    indices = torch.sort(x, dim=dim, descending=largest, stable=True).indices.narrow(dim, 0, k)
    return bits(x).gather(dim, indices), indices


def holds(result, x: torch.Tensor, k: int, dim: int = -1, largest: bool = True) -> None:
    """Assert that the result is the answer."""
    values, indices = expected(x, k, dim, largest)
    assert isinstance(result, torch.return_types.topk)
    assert result.values.dtype == x.dtype and result.indices.dtype == torch.int64
    assert result.values.device == x.device and result.indices.device == x.device
    assert result.values.shape == values.shape and result.indices.shape == values.shape
    assert torch.equal(result.indices.cpu(), indices)
    assert torch.equal(bits(result.values.detach().cpu()), values)


def check(x: torch.Tensor, k: int, dim: int = -1, largest: bool = True) -> None:
    """Assert that topk answers as it should, and leaves x alone."""
    before = bits(x.detach().cpu())
    holds(aikf.topk(x, k, dim, largest), x, k, dim, largest)
    assert torch.equal(bits(x.detach().cpu()), before)


def from_bits(row, dtype: torch.dtype) -> torch.Tensor:
    """Return floats with these bits."""
    if dtype == torch.float32:
        return torch.tensor([b - (1 << 32) if b >> 31 else b for b in row], dtype=torch.int32).view(dtype)
    return torch.tensor([b - (1 << 16) if b >> 15 else b for b in row], dtype=torch.int16).view(dtype)


def special(dtype: torch.dtype) -> torch.Tensor:
    """Return both zeros, infinities, NaN of both signs and several payloads, denormals, the largest and the smallest."""
    sign, infinity = {
        torch.float32: (1 << 31, 0x7F800000),
        torch.float16: (1 << 15, 0x7C00),
        torch.bfloat16: (1 << 15, 0x7F80),
    }[dtype]
    magnitudes = [0, 1, 2, infinity - 1, infinity, infinity + 1, sign - 1, infinity // 2, infinity // 2 + 1]
    return from_bits([s | m for m in magnitudes for s in (0, sign)], dtype)


def rows(kind: str, n: int, vocab: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """Return [n, vocab] of a kind."""
    random = torch.Generator().manual_seed(seed)
    normal = torch.randn(n, vocab, generator=random)
    ramp = torch.arange(vocab, dtype=torch.float64).expand(n, -1)
    if kind == "normal":
        return normal.to(dtype)
    if kind == "constant":
        return torch.full((n, vocab), 1.5).to(dtype)
    if kind == "two values":
        return (normal > 0).to(dtype)
    if kind == "ascending":
        return ramp.to(dtype)
    if kind == "descending":
        return (-ramp).to(dtype)
    if kind == "last is best":
        return torch.cat([normal[:, 1:].clamp(max=1), torch.full((n, 1), 9.0)], 1).to(dtype)
    if kind == "masked":
        return normal.masked_fill(torch.rand(n, vocab, generator=random) < 0.99, float("-inf")).to(dtype)
    if kind == "special":
        pool = special(dtype)
        return pool[torch.randint(len(pool), (n, vocab), generator=random)]
    raise ValueError(kind)


KINDS = ("normal", "constant", "two values", "ascending", "descending", "last is best", "masked", "special")
