"""The manners of torch.topk: errors, out, gradients, modes, compilation."""

import warnings

import pytest
import torch
from oracle import DTYPES, bits, check, holds, rows

import aikf

X = rows("normal", 4, 9, torch.float32)


def both_raise(error, message, *args, **kwargs):
    """torch.topk raises the error; ours too, with the message."""
    with pytest.raises(error):
        torch.topk(*args, **kwargs)
    with pytest.raises(error, match=message):
        aikf.topk(*args, **kwargs)


@pytest.mark.parametrize("grad", [False, True])
def test_errors(grad, device):
    x = X.clone().to(device).requires_grad_(grad)
    both_raise(RuntimeError, r"selected index k out of range: k = 10, and dimension 1 has 9", x, 10)
    both_raise(RuntimeError, r"selected index k out of range: k = 5, and dimension 0 has 4", x, 5, 0)
    both_raise(RuntimeError, r"selected index k out of range: k = -1", x, -1)
    both_raise(IndexError, r"range of \[-2, 1\], but got 2", x, 1, 2)
    both_raise(IndexError, r"range of \[-2, 1\], but got -3", x, 1, -3)
    both_raise(IndexError, r"range of \[-1, 0\], but got 1", x[0, 0], 1, 1)
    both_raise(RuntimeError, r"selected index k out of range", x[0, 0], 2)
    both_raise(TypeError, r"'k' \(position 2\) must be int, not float", x, 2.0)
    both_raise(TypeError, r"'k' \(position 2\) must be int, not bool", x, True)
    both_raise(TypeError, r"'k' \(position 2\) must be int, not Tensor", x, torch.tensor(2.0))
    both_raise(TypeError, r"'dim' \(position 3\) must be int, not bool", x, 2, True)
    both_raise(TypeError, r"'dim' \(position 3\) must be int, not NoneType", x, 2, None)
    both_raise(TypeError, r"'largest' \(position 4\) must be bool, not int", x, 2, -1, 1)
    both_raise(TypeError, r"'largest' \(position 4\) must be bool, not NoneType", x, 2, -1, None)
    both_raise(TypeError, r"must be Tensor, not list", [1.0, 2.0], 1)


def test_numbers_beyond_64_bits(device):
    x = X.to(device)
    with pytest.raises(RuntimeError, match=f"selected index k out of range: k = {1 << 70}, and dimension 1 has 9"):
        aikf.topk(x, 1 << 70)
    with pytest.raises(IndexError, match=rf"range of \[-2, 1\], but got {-1 << 70}"):
        aikf.topk(x, 1, -1 << 70)


def test_memory_that_was_freed(device):
    x = X.clone().to(device)
    x.untyped_storage().resize_(0)
    for topk in (aikf.topk, torch.ops.aikf.topk):
        with pytest.raises(RuntimeError, match="x has no memory"):
            topk(x, 2)


def test_more_dimensions_than_torch_iterates_over():
    x = torch.zeros(1).view((1,) * 65)
    with pytest.raises(ValueError, match="at most 64 dimensions"):
        aikf.topk(x, 1)
    check(x[0], 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.int64, torch.bool, torch.complex64, torch.uint8], ids=str)
def test_other_dtypes(dtype, device):
    with pytest.raises(TypeError, match=rf"dtype {dtype}, want torch.float32, torch.float16 or torch.bfloat16"):
        aikf.topk(torch.zeros(3, dtype=dtype, device=device), 1)


def test_other_layouts_and_devices():
    with pytest.raises(NotImplementedError, match="aikf::topk.*SparseCPU"):
        aikf.topk(X.to_sparse(), 2)
    meta = aikf.topk(X.to("meta"), 2)
    assert meta.values.is_meta and meta.values.shape == (4, 2) and meta.indices.dtype == torch.int64


def test_k_may_be_an_integer_of_any_kind(device):
    x = X.to(device)
    check(x, 3)
    holds(aikf.topk(x, torch.tensor(3)), x, 3)


def test_out(device):
    x = X.to(device)
    out = torch.empty(4, 3, device=device), torch.empty(4, 3, dtype=torch.int64, device=device)
    result = aikf.topk(x, 3, out=out)
    assert result.values is out[0] and result.indices is out[1]
    holds(result, x, 3)
    holds(aikf.topk(x, 3, 1, False, out=out), x, 3, 1, False)
    holds(aikf.topk(x, 3, out=list(out)), x, 3)


def test_out_in_other_layouts(device):
    x = X.to(device)
    wide = torch.empty(4, 6, device=device), torch.empty(3, 4, dtype=torch.int64, device=device)
    out = wide[0][:, ::2], wide[1].t()
    result = aikf.topk(x, 3, out=out)
    assert result.values is out[0] and out[1].stride() == (1, 4)
    holds(result, x, 3)
    holds(aikf.topk(x, 2, 0), x, 2, 0)
    out = torch.empty(2, 9, device=device), torch.empty(2, 9, dtype=torch.int64, device=device)
    holds(aikf.topk(x, 2, 0, out=out), x, 2, 0)


def test_out_that_is_the_input(device):
    x = X.to(device).clone()
    before = x.clone()
    result = aikf.topk(x, 9, out=(x, torch.empty(4, 9, dtype=torch.int64, device=device)))
    assert result.values is x
    holds(result, before, 9)


def test_out_is_resized(device):
    x = X.to(device)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = torch.empty(0, device=device), torch.empty(0, dtype=torch.int64, device=device)
        holds(aikf.topk(x, 3, out=out), x, 3)
    out = torch.empty(2, device=device), torch.empty(0, dtype=torch.int64, device=device)
    with pytest.warns(UserWarning, match=r"was resized since it had shape \[2\], which does not match .*\[4, 3\]"):
        holds(aikf.topk(x, 3, out=out), x, 3)


def test_out_errors(device):
    x, values, indices = X.to(device), torch.empty(0, device=device), torch.empty(0, dtype=torch.int64, device=device)
    both_raise(RuntimeError, "Expected out tensor to have dtype", x, 3, out=(values.double(), indices))
    both_raise(RuntimeError, "Expected out tensor to have dtype", x, 3, out=(values, indices.int()))
    both_raise(RuntimeError, "Expected out tensor to have device", x, 3, out=(values.to("meta"), indices))
    both_raise(TypeError, "must be tuple of Tensors", x, 3, out=values)
    both_raise(TypeError, "expected tuple of 2 elements but got 1", x, 3, out=(values,))
    both_raise(TypeError, "expected Tensor as element 0 .* but got NoneType", x, 3, out=(None, indices))
    both_raise(RuntimeError, "don't support automatic differentiation", x.clone().requires_grad_(), 3, out=(values, indices))
    both_raise(RuntimeError, "selected index k out of range", x, 10, out=(values, indices))


def test_out_is_a_write_that_autograd_knows_of(device):
    x, weights = X.to(device), torch.ones(4, 3, device=device, requires_grad=True)
    for topk in (torch.topk, aikf.topk):
        out = torch.zeros(4, 3, device=device), torch.empty(4, 3, dtype=torch.int64, device=device)
        product = (out[0] * weights).sum()
        versions = [t._version for t in out]
        topk(x, 3, out=out)
        assert all(t._version > version for t, version in zip(out, versions))
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            product.backward()


def test_out_of_inference_mode(device):
    x = X.to(device)
    with torch.inference_mode():
        out = torch.empty(4, 3, device=device), torch.empty(4, 3, dtype=torch.int64, device=device)
        holds(aikf.topk(x, 3, out=out), x, 3)
    both_raise(RuntimeError, "Inplace update to inference tensor", x, 3, out=out)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_gradient(dim, dtype, device):
    x = X.to(dtype).to(device)
    weights = torch.arange(1.0, 3 * x.shape[1 - dim % 2] + 1, device=device).to(dtype)
    gradients = []
    for topk in (torch.topk, aikf.topk):
        leaf = x.clone().requires_grad_()
        result = topk(leaf, 3, dim)
        assert result.values.requires_grad and not result.indices.requires_grad
        (result.values * weights.view(result.values.shape)).sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)
    holds(aikf.topk(x.clone().requires_grad_(), 3, dim), x, 3, dim)


def test_gradcheck(device):
    # Float32 is the widest dtype: far apart, so that no step changes the order.
    x = torch.randperm(20, generator=torch.Generator().manual_seed(0)).view(4, 5).float().to(device).requires_grad_()
    for dim in (0, 1):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Input #0 requires gradient and is not a double")
            assert torch.autograd.gradcheck(lambda x: aikf.topk(x, 2, dim).values, (x,), eps=0.25, atol=1e-4)
            # Twice: of a function of values that is not linear.
            assert torch.autograd.gradgradcheck(lambda x: aikf.topk(x, 2, dim).values ** 2 / 64, (x,), eps=0.25, atol=1e-2)


def test_no_gradient_wanted(device):
    x = X.clone().to(device).requires_grad_()
    with torch.no_grad():
        assert not aikf.topk(x, 2).values.requires_grad
    parameter = torch.nn.Parameter(X.to(device))
    with torch.inference_mode():
        result = aikf.topk(parameter, 2)
        assert result.values.is_inference() and type(result.values) is torch.Tensor
    holds(result, X.to(device), 2)
    assert aikf.topk(parameter, 2).values.requires_grad


def test_autocast_leaves_the_dtype(device):
    x = X.to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        assert (x @ x.T).dtype == torch.bfloat16
        holds(aikf.topk(x, 2), x, 2)
        holds(aikf.topk(x.clone().requires_grad_(), 2), x, 2)


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_compile(backend, device):
    torch._dynamo.reset()

    def both(x):
        values, indices = aikf.topk(x * 2, 3)
        return values.exp(), indices, aikf.topk(x, 2, dim=0, largest=False)

    x = X.to(device)
    compiled = torch.compile(both, fullgraph=True, backend=backend)
    for _ in range(2):
        for got, want in zip(compiled(x), both(x)):
            torch.testing.assert_close(got, want)
    with pytest.raises(Exception, match="selected index k out of range"):
        torch.compile(lambda x: aikf.topk(x, 10), fullgraph=True, backend=backend)(x)


def test_compile_with_gradient_and_sizes_that_change(device):
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, k: aikf.topk(x, k).values.square().sum(), fullgraph=True, dynamic=True, backend="aot_eager")
    for n, vocab, k in ((4, 9, 3), (5, 11, 4), (6, 17, 5)):
        x = rows("normal", n, vocab, torch.float32).to(device).requires_grad_()
        compiled(x, k).backward()
        top = aikf.topk(x.detach(), k)
        assert torch.equal(x.grad, torch.zeros_like(x).scatter(1, top.indices, 2 * top.values))


@pytest.mark.parametrize("args", [(2,), (0,), (3, 0), (2, 1, False), (9, -1)], ids=str)
@pytest.mark.parametrize("grad", [False, True])
def test_opcheck(args, grad, device):
    x = X.clone().to(device).requires_grad_(grad)
    torch.library.opcheck(torch.ops.aikf.topk.default, (x, *args))
    torch.library.opcheck(torch.ops.aikf.topk.default, (x.detach().view(2, 2, 9).transpose(0, 2).requires_grad_(grad), *args[:1], 0))


def test_fake_tensors():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        fake = mode.from_tensor(X)
        for dim in (0, 1):
            result, real = aikf.topk(fake, 2, dim), aikf.topk(torch.empty(4, 9), 2, dim)
            assert result.values.shape == real.values.shape and result.values.stride() == real.values.stride()
    for dim in (0, 1, -1, -2):
        fake, real = aikf.topk(X.to("meta"), 2, dim), aikf.topk(X, 2, dim)
        assert [t.stride() for t in fake] == [t.stride() for t in real]
    with pytest.raises(TypeError, match="dtype torch.int64"):
        aikf.topk(torch.zeros(3, dtype=torch.int64, device="meta"), 1)
    with pytest.raises(IndexError):
        aikf.topk(X.to("meta"), 1, 2)
    with pytest.raises(RuntimeError, match="selected index k out of range"):
        aikf.topk(X.to("meta"), 10)


def test_vmap(device):
    x = rows("two values", 6, 20, torch.float32).view(2, 3, 20).to(device)
    for in_dim in range(3):
        for dim in (0, 1, -1):
            got = torch.vmap(lambda x: aikf.topk(x, 2, dim), in_dims=in_dim)(x)
            want = [aikf.topk(x.select(in_dim, i), 2, dim) for i in range(x.shape[in_dim])]
            assert torch.equal(got.values, torch.stack([w.values for w in want]))
            assert torch.equal(got.indices, torch.stack([w.indices for w in want]))
    assert torch.equal(torch.vmap(lambda x: aikf.topk(x, 1).values)(x[0, 0]), x[0, 0])


def test_vmap_of_wrong_arguments(device):
    """What is beside a slice is not the function's to select from."""
    x = X.to(device)
    for dim in (1, -2):
        with pytest.raises(IndexError, match=rf"range of \[-1, 0\], but got {dim}"):
            torch.vmap(lambda row: aikf.topk(row, 1, dim))(x)
    with pytest.raises(RuntimeError, match="selected index k out of range: k = 2, and dimension 0 has 1"):
        torch.vmap(lambda element: aikf.topk(element, 2))(x[0])


def test_what_stands_for_a_tensor(device):
    """As torch.fx traces: a call of topk, whoever traces it."""
    x = X.to(device)
    traced = torch.fx.symbolic_trace(lambda x: aikf.topk(x, 3, 0, largest=False))
    assert [node.target for node in traced.graph.nodes if node.op == "call_function"] == [aikf.topk]
    holds(traced(x), x, 3, 0, False)
    out = torch.empty(4, 3, device=device), torch.empty(4, 3, dtype=torch.int64, device=device)
    torch.fx.symbolic_trace(lambda x, values, indices: aikf.topk(x, 3, out=(values, indices)))
    traced = torch.fx.symbolic_trace(lambda x: aikf.topk(x, 3, out=out))
    holds(traced(x), x, 3)


def test_func_grad(device):
    x = X.to(device)
    got = torch.func.grad(lambda x: aikf.topk(x, 3).values.sum())(x)
    assert torch.equal(got, torch.zeros_like(x).scatter(1, aikf.topk(x, 3).indices, 1.0))
    got = torch.vmap(torch.func.grad(lambda x: aikf.topk(x, 3).values.sum()))(x)
    assert torch.equal(got, torch.zeros_like(x).scatter(1, aikf.topk(x, 3).indices, 1.0))
    hessian = torch.func.hessian(lambda x: aikf.topk(x, 3).values.square().sum())(x[0])
    assert torch.equal(hessian, torch.diag(torch.zeros_like(x[0]).scatter(0, aikf.topk(x[0], 3).indices, 2.0)))


def test_forward_mode(device):
    x, direction = X.to(device), rows("normal", 4, 9, torch.float32, seed=8).to(device)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, direction)
        result = aikf.topk(dual, 2)
        tangent = torch.autograd.forward_ad.unpack_dual(result.values).tangent
    assert torch.equal(tangent, direction.gather(1, aikf.topk(x, 2).indices))
    _, tangent = torch.func.jvp(lambda x: aikf.topk(x, 2, 0).values, (x,), (direction,))
    assert torch.equal(tangent, direction.gather(0, aikf.topk(x, 2, 0).indices))


def test_subclasses_and_modes_see_the_call(device):
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Subclass(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return super().__torch_function__(func, types, args, kwargs or {})

    class Functions(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    class Dispatches(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    x = X.to(device)
    for mode in (Functions(), Dispatches()):
        seen.clear()
        with mode:
            result = aikf.topk(x, 2)
        assert any("aikf.topk" in name for name in seen), seen
        holds(result, x, 2)
    seen.clear()
    assert isinstance(aikf.topk(x.as_subclass(Subclass), 2).values, Subclass)
    assert any("aikf.topk" in name for name in seen), seen


def test_trace(device):
    """A trace holds the call, not one answer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(lambda x: aikf.topk(x, 2).values, (X.to(device),), check_trace=False)
    other = rows("normal", 4, 9, torch.float32, seed=9).to(device)
    assert torch.equal(bits(traced(other)), bits(aikf.topk(other, 2).values))


def test_default_device_is_no_matter(device):
    with torch.device("meta"):
        result = aikf.topk(X.to(device), 2)
    holds(result, X.to(device), 2)


def test_the_dispatcher_is_not_asked(device):
    """A plain call takes the short way."""
    x = X.to(device)
    for topk, asked in ((aikf.topk, False), (torch.ops.aikf.topk, True)):
        with torch.autograd.profiler.profile() as profile:
            topk(x, 5)
        assert any("aikf" in event.name for event in profile.function_events) == asked


def test_export(device):
    class Model(torch.nn.Module):
        def forward(self, x):
            return aikf.topk(x, 3).indices

    x = X.to(device)
    exported = torch.export.export(Model(), (x,))
    assert "aikf.topk" in str(exported.graph)
    assert torch.equal(exported.module()(x), aikf.topk(x, 3).indices)


def test_compile_with_out(device):
    torch._dynamo.reset()
    x = X.to(device)
    out = torch.empty(4, 3, device=device), torch.empty(4, 3, dtype=torch.int64, device=device)
    torch.compile(lambda x: aikf.topk(x, 3, out=out), backend="aot_eager")(x)
    holds(torch.return_types.topk(out), x, 3)
