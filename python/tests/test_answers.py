"""What topk answers: values, their bits, and the indices of a stable sort."""

import pytest
import torch
from oracle import DTYPES, KINDS, check, holds, rows, special

import aikf

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
both_ways = pytest.mark.parametrize("largest", [True, False], ids=["largest", "smallest"])


@every_dtype
def test_fixture_has_every_kind_of_value(dtype):
    x = special(dtype)
    assert x.isnan().sum() == 4 and x.isinf().sum() == 2 and (x == 0).sum() == 2
    assert torch.signbit(x[x == 0]).sum() == 1 and torch.signbit(x[x.isnan()]).sum() == 2
    assert ((x != 0) & (x.abs() < torch.finfo(dtype).tiny)).sum() == 4


@both_ways
@every_dtype
@pytest.mark.parametrize("kind", KINDS)
def test_rows(kind, dtype, largest, device):
    for vocab in (1, 2, 63, 64, 65, 1000, 5003):
        for k in {0, 1, 2, 50, 64, vocab // 2, vocab - 1, vocab}:
            if k <= vocab:
                check(rows(kind, 3, vocab, dtype, seed=vocab + k).to(device), k, largest=largest)


@every_dtype
@pytest.mark.parametrize("n, vocab, k", [
    (1, 50304, 50), (1, 50304, 100), (1, 50304, 200), (4, 50304, 50), (16, 50304, 50), (32, 50304, 50), (32, 50304, 200),
    (2, 50257, 1024), (1, 151936, 50), (2, 65536, 2048), (1, 65537, 2049), (1, 262144, 64), (3, 10000, 10000),
])  # fmt: skip
def test_reference_matrix(n, vocab, k, dtype, device):
    x = rows("normal", n, vocab, dtype, seed=k)
    check(x.to(device), k)
    check(rows("special", n, vocab, dtype, seed=k).to(device), k, largest=False)


@every_dtype
def test_every_vocab(dtype, device):
    for vocab in range(1, 300):
        x = rows("two values" if vocab % 2 else "normal", 2, vocab, dtype, seed=vocab).to(device)
        check(x, min(vocab, vocab * 7 % 61))


@every_dtype
@pytest.mark.parametrize("shape", [(7,), (1, 7), (2, 3, 7), (2, 1, 3, 5), (1, 1, 1), (2, 3, 4, 5, 6)], ids=str)
def test_every_dimension(shape, dtype, device):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(dtype).to(device)
    for dim in range(-len(shape), len(shape)):
        for k in (0, 1, shape[dim]):
            check(x, k, dim)
            check(x, k, dim, False)


@pytest.mark.parametrize("shape, k", [((0,), 0), ((0, 5), 2), ((5, 0), 0), ((2, 0, 4), 3), ((0, 0), 0), ((3, 4), 0)], ids=str)
def test_empty(shape, k, device):
    result = aikf.topk(torch.empty(shape, device=device), k)
    assert result.values.shape == (*shape[:-1], k) and result.indices.shape == (*shape[:-1], k)


def test_single_element(device):
    x = torch.tensor(3.5, device=device)
    for k in (0, 1):  # torch.topk too returns the element
        holds(aikf.topk(x, k), x, k)
        assert torch.topk(x, k).values.shape == ()


def views(base: torch.Tensor):
    """Yield tensors that lie in memory in many ways."""
    yield "padded vocabulary", base[:, :50]
    yield "from element 1", base[:, 1:]
    yield "every other row", base[::2]
    yield "transposed", base.t()
    yield "every other column", base[:, ::2]
    yield "expanded row", base[0].expand(5, -1)
    yield "expanded batch", base[:, None, :].expand(-1, 3, -1)
    yield "expanded columns", base[:, :1].expand(-1, 9)
    yield "three dimensions, one stride", base.view(2, 3, -1)[:, :, 3:60]
    yield "three dimensions, two strides", base.view(2, 3, -1)[:, :2, :]
    yield "overlapping rows", base.flatten().as_strided((6, 40), (7, 1))
    yield "one column", base[:, 7:8]
    yield "rows of size one", base[2:3, 5:31]
    yield "permuted", base.view(2, 3, -1).permute(2, 0, 1)


@every_dtype
def test_views(dtype, device):
    base = rows("normal", 6, 64, dtype, seed=5).to(device)
    for name, view in views(base):
        for dim in range(view.dim()):
            size = view.shape[dim]
            for k in (1, size // 2, size):
                check(view, k, dim)
        assert view.untyped_storage().data_ptr() == base.untyped_storage().data_ptr(), name


def test_conjugate_view(device):
    """The imaginary part of a conjugate waits to be negated."""
    z = torch.complex(torch.zeros(4, 9), rows("normal", 4, 9, torch.float32)).to(device)
    view = z.conj().imag
    assert view.is_neg()
    for x in (view, view[:, :1], view[:1, :1]):
        check(x, x.shape[1])


def test_ties_keep_the_smaller_index(device):
    x = torch.tensor([[1.0, 3.0, 3.0, 2.0, 3.0, 2.0]], device=device)
    assert aikf.topk(x, 4).indices.tolist() == [[1, 2, 4, 3]]
    assert aikf.topk(x, 4, largest=False).indices.tolist() == [[0, 3, 5, 1]]


def test_result_is_that_of_torch(device):
    x = rows("normal", 2, 100, torch.float32).to(device)
    ours, theirs = aikf.topk(x, 5), torch.topk(x, 5)
    assert type(ours) is type(theirs)
    assert torch.equal(ours.values, theirs.values) and torch.equal(ours.indices, theirs.indices)  # no ties among these
    values, indices = ours
    assert values is ours[0] and indices is ours.indices


def test_keywords(device):
    x = rows("normal", 4, 9, torch.float32).to(device)
    holds(aikf.topk(x=x, k=2, dim=0, largest=False, sorted=True), x, 2, 0, False)
    holds(aikf.topk(x, k=3, sorted=False), x, 3)  # in order all the same
