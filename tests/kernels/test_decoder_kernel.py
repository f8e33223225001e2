"""The input of a decoder's convolution, of every backend, against the plain one in float64 and numpy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from geossl import kernels
from geossl.kernels.decoder import decoder_input_fits
from geossl.networks.depth_decoder import DepthDecoder, decoder_input

CHANNELS, DIMS = (6, 5, 4, 3, 7), (4, 5, 8, 3, 9)


@pytest.fixture
def cpu() -> None:
    if "cpu" not in kernels.available():
        pytest.skip("the CPU kernels were not built")


def maps(b: int, c: int, h: int, w: int, joined: int, upsample: bool, seed: int = 0) -> tuple[Tensor, Tensor | None]:
    """Random maps in channels_last, some values exactly 0."""
    g = torch.Generator().manual_seed(seed)
    factor = 2 if upsample else 1
    x = 2 * torch.randn(b, c, h, w, generator=g)
    x.view(-1)[::7] = 0
    feature = torch.randn(b, joined, factor * h, factor * w, generator=g) if joined else None
    return last(x), None if feature is None else last(feature)


def last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def solve(x: Tensor, feature: Tensor | None, upsample: bool, upstream: Tensor, backend: str) -> list[Tensor]:
    """The result and the gradients to both maps."""
    inputs = [m.detach().requires_grad_() for m in (x, feature) if m is not None]
    with kernels.use(backend):
        out = (
            decoder_input(*inputs, upsample=upsample)
            if feature is not None
            else decoder_input(inputs[0], None, upsample)
        )
    return [out.detach(), *torch.autograd.grad(out, inputs, upstream)]


def upstream_of(x: Tensor, feature: Tensor | None, upsample: bool) -> Tensor:
    g = torch.Generator().manual_seed(1)
    b, c, h, w = x.shape
    factor = 2 if upsample else 1
    joined = 0 if feature is None else feature.shape[1]
    return last(torch.randn(b, c + joined, factor * h + 2, factor * w + 2, generator=g))


SHAPES = [
    (1, 8, 5, 9),
    (3, 13, 7, 4),
    (2, 1, 6, 5),
    (1, 24, 2, 2),
    (3, 3, 2, 3),
    (2, 16, 3, 2),
    (1, 7, 3, 3),
    (2, 9, 4, 4),
]


@pytest.mark.parametrize(
    ("shape", "joined", "upsample"),
    [*product(SHAPES, [0, 1, 8, 11], [False, True]), *product([(2, 5, 1, 1), (1, 8, 1, 4)], [0, 3], [True])],
)
def test_decoder_input_equals_float64(backend: str, shape: tuple[int, ...], joined: int, upsample: bool) -> None:
    x, feature = maps(*shape, joined, upsample)
    upstream = upstream_of(x, feature, upsample)
    double = [None if m is None else m.double() for m in (x, feature)]
    expected = solve(*double, upsample, upstream.double(), "plain")  # type: ignore[arg-type]
    for found, wanted in zip(solve(x, feature, upsample, upstream, backend), expected, strict=True):
        torch.testing.assert_close(found, wanted.float(), atol=1e-6, rtol=1e-6)


def test_decoder_input_is_its_numpy_statement(backend: str) -> None:
    x, feature = maps(3, 5, 3, 4, 2, upsample=True)
    assert feature is not None
    active = np.where(x > 0, x, np.expm1(x.double().numpy()))
    both = np.concatenate([active.repeat(2, 2).repeat(2, 3), feature], 1)
    with kernels.use(backend):
        found = decoder_input(x, feature, upsample=True)
    assert found.shape == (3, 7, 8, 10)
    np.testing.assert_allclose(found, np.pad(both, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect"), atol=2e-7)


def test_gradient_of_a_pixel_counts_its_copies(backend: str) -> None:
    """A map of ones, of 3 columns: the middle one is copied to both borders as well."""
    x = last(torch.ones(1, 1, 4, 3))
    _, of_x = solve(x, None, False, torch.ones(1, 1, 6, 5), backend)
    rows, columns = torch.tensor([1.0, 2, 2, 1]), torch.tensor([1.0, 3, 1])
    assert torch.equal(of_x[0, 0], torch.outer(rows, columns))
    _, of_small = solve(x, None, True, torch.ones(1, 1, 10, 8), backend)
    rows, columns = torch.tensor([3.0, 2, 2, 3]), torch.tensor([3.0, 2, 3])
    assert torch.equal(of_small[0, 0], torch.outer(rows, columns))


def test_elu_of_all_sizes_of_numbers(backend: str) -> None:
    x = torch.cat([-torch.logspace(-40, 3, 2000), torch.logspace(-40, 30, 500), torch.tensor([0.0, torch.inf])])
    x = last(x[:2500].view(1, 1, 50, 50))
    with kernels.use(backend):
        found = decoder_input(x)[..., 1:-1, 1:-1]
    torch.testing.assert_close(found, torch.nn.functional.elu(x.double()).float(), rtol=3e-7, atol=0)


def test_elu_of_what_is_not_finite(backend: str) -> None:
    x = last(torch.tensor([torch.nan, torch.inf, -torch.inf, -1e30]).expand(2, 4).contiguous().view(1, 1, 2, 4))
    with kernels.use(backend):
        found = decoder_input(x)[0, 0, 1, 1:-1]
    assert found[0].isnan() and found[1].isinf() and torch.equal(found[2:], torch.tensor([-1.0, -1.0]))


@pytest.mark.parametrize(("joined", "upsample"), list(product([0, 11], [False, True])))
def test_bfloat16_is_float32_rounded(backend: str, joined: int, upsample: bool) -> None:
    x, feature = (None if m is None else m.bfloat16() for m in maps(3, 13, 6, 5, joined, upsample))
    assert x is not None
    upstream = upstream_of(x, feature, upsample).bfloat16()
    found = solve(x, feature, upsample, upstream, backend)
    single = [None if m is None else m.float() for m in (x, feature)]
    expected = solve(*single, upsample, upstream.float(), "plain")  # type: ignore[arg-type]
    assert all(m.dtype == torch.bfloat16 for m in found)
    torch.testing.assert_close(found[0], expected[0].bfloat16(), rtol=2**-7, atol=0)
    for ours, wanted in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(ours.float(), wanted, rtol=2**-6, atol=0.05)  # plain sums in bfloat16
        assert (ours.float() - wanted).norm() < 5e-3 * wanted.norm()


@pytest.mark.usefixtures("cpu")
def test_kernel_runs_where_it_can_and_the_result_is_the_same_elsewhere() -> None:
    x, feature = maps(2, 4, 6, 5, 3, upsample=True)
    assert feature is not None
    assert decoder_input_fits(x, feature) and decoder_input_fits(x.bfloat16(), None)
    usual = decoder_input(x, feature, upsample=True)
    assert usual.is_contiguous(memory_format=torch.channels_last)
    for other in ((x.contiguous(), feature), (x, feature.contiguous()), (x.double(), feature), (x[:, 1:], feature)):
        assert not decoder_input_fits(*other)
    assert not decoder_input_fits(x, feature.bfloat16()) and not decoder_input_fits(x.half(), None)
    torch.testing.assert_close(decoder_input(x.contiguous(), feature.contiguous(), upsample=True), usual)
    with kernels.use("plain"):
        assert not decoder_input_fits(x, feature)
        torch.testing.assert_close(decoder_input(x, feature, upsample=True), usual)


@pytest.mark.parametrize("wanting", [0, 1])
def test_gradient_only_where_one_is_wanted(backend: str, wanting: int) -> None:
    given = maps(2, 4, 6, 5, 3, upsample=True)
    upstream = upstream_of(*given, upsample=True)
    expected = solve(*given, True, upstream, "plain")[1:]
    given[wanting].requires_grad_()  # type: ignore[union-attr]
    with kernels.use(backend):
        decoder_input(*given, upsample=True).backward(upstream)
    assert given[1 - wanting].grad is None  # type: ignore[union-attr]
    torch.testing.assert_close(given[wanting].grad, expected[wanting])  # type: ignore[union-attr]


def test_gradient_of_any_strides(backend: str) -> None:
    x, feature = maps(2, 4, 6, 5, 3, upsample=False)
    upstream = upstream_of(x, feature, upsample=False)
    usual = solve(x, feature, False, upstream, backend)
    for found, wanted in zip(solve(x, feature, False, upstream.contiguous(), backend), usual, strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.usefixtures("cpu")
def test_threads_share_the_rows() -> None:
    x, feature = maps(3, 4, 5, 6, 3, upsample=True)
    upstream = upstream_of(x, feature, upsample=True)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 4, 40):
            torch.set_num_threads(count)
            results.append(solve(x, feature, True, upstream, "cpu"))
    finally:
        torch.set_num_threads(threads)
    for found in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found, results[0], strict=True))


@pytest.mark.usefixtures("cpu")
def test_only_the_result_is_kept() -> None:
    x, feature = maps(1, 4, 6, 5, 3, upsample=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
        out = decoder_input(x.requires_grad_(), feature, upsample=True)
    assert [t.data_ptr() for t in kept] == [out.data_ptr()]


@pytest.mark.usefixtures("cpu")
def test_second_derivative_is_refused() -> None:
    x = maps(1, 4, 6, 5, 0, upsample=False)[0].requires_grad_()
    (of_x,) = torch.autograd.grad(decoder_input(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        of_x.sum().backward()


def test_sizes_that_do_not_fit_are_named(backend: str) -> None:
    x, feature = maps(2, 4, 6, 5, 3, upsample=True)
    with kernels.use(backend):
        with pytest.raises(ValueError, match=r"expected \(2, C, 6, 5\), as x \(2, 4, 6, 5\) is made 1 times as large"):
            decoder_input(x, feature)
        with pytest.raises(ValueError, match="2 x 2 pixels or more"):
            decoder_input(x[..., :1])


def decoder_and_features(batch: int) -> tuple[DepthDecoder, list[Tensor]]:
    torch.manual_seed(0)
    decoder = DepthDecoder(CHANNELS, dims=DIMS).to(memory_format=torch.channels_last)
    sizes = [(batch, c, 64 // s, 96 // s) for c, s in zip(CHANNELS, (2, 4, 8, 16, 32), strict=True)]
    return decoder, [last(torch.randn(size)) for size in sizes]


@pytest.mark.parametrize("batch", [1, 3])
def test_decoder_and_its_gradients_equal_float64(backend: str, batch: int) -> None:
    decoder, features = decoder_and_features(batch)
    weights = [torch.rand(batch, 1, 64 >> s, 96 >> s) for s in range(4)]

    def solved(inputs: list[Tensor], backend: str) -> list[Tensor]:
        inputs = [x.detach().requires_grad_() for x in inputs]
        with kernels.use(backend):
            found = decoder(inputs)
        loss = sum((m * w).sum() for m, w in zip(found, weights, strict=True))
        return [*(m.detach() for m in found), *torch.autograd.grad(loss, [*inputs, *decoder.parameters()])]  # type: ignore[arg-type]

    ours = solved(features, backend)
    decoder.double()
    for found, wanted in zip(ours, solved([f.double() for f in features], "plain"), strict=True):
        assert (found - wanted).norm() < 1e-5 * wanted.norm()  # plain float32: 3e-6


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.usefixtures("cpu")
def test_traced_and_compiled_decoders_are_plain_and_the_same() -> None:
    decoder, features = decoder_and_features(1)
    _, others = decoder_and_features(3)
    with torch.no_grad():
        traced = torch.jit.trace(decoder, (features,))
        for network in (traced, torch.compile(decoder, backend="eager", fullgraph=True)):
            for found, wanted in zip(network(others), decoder(others), strict=True):
                torch.testing.assert_close(found, wanted)
