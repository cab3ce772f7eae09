from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pipeline_lib.methods import von_mises_fisher
from pipeline_lib.methods.von_mises_fisher import log_normaliser, mean_resultant_length, sample

DIMS = [2, 3, 8, 33, 128, 512, 2048]
CONCENTRATIONS = [1e-2, 0.5, 3.0, 40.0, 1e3, 3e4, 1e6]


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def direction(dim: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(dim, dtype=torch.float64, generator=generator), dim=0)


def log_normaliser_by_definition(dim: int, kappa: float) -> float:
    with mpmath.workdps(30):
        order = mpmath.mpf(dim) / 2 - 1
        bessel = mpmath.besseli(order, kappa)
        return float(order * mpmath.log(kappa) - mpmath.mpf(dim) / 2 * mpmath.log(2 * mpmath.pi) - mpmath.log(bessel))


def resultant_by_definition(dim: int, kappa: float) -> float:
    with mpmath.workdps(30):
        order = mpmath.mpf(dim) / 2
        return float(mpmath.besseli(order, kappa) / mpmath.besseli(order - 1, kappa))


def angle_density(dim: int, kappa: float, cells: int = 50_000) -> tuple[np.ndarray, np.ndarray]:
    """The middles of equal cells of [0, pi], as far as the density reaches, and each cell's probability."""
    reach = min(math.pi, (40 + 2 * math.sqrt(dim)) / math.sqrt(kappa)) if kappa else math.pi
    theta = (np.arange(cells) + 0.5) * (reach / cells)
    log_density = kappa * (np.cos(theta) - 1) + (dim - 2) * np.log(np.sin(theta))
    density = np.exp(log_density - log_density.max())
    return theta, density / density.sum()


def up_to(cells: np.ndarray) -> np.ndarray:
    """The integral up to the middle of each cell."""
    return np.cumsum(cells) - cells / 2


@pytest.mark.parametrize("dim", DIMS)
def test_log_normaliser_and_its_gradient_are_those_of_the_bessel_functions(dim):
    kappa = double(*CONCENTRATIONS).requires_grad_()
    value = log_normaliser(dim, kappa)
    (gradient,) = torch.autograd.grad(value.sum(), kappa)
    # The logarithm crosses zero, so its error is relative to max(1, |log C|).
    for i, k in enumerate(CONCENTRATIONS):
        expected = log_normaliser_by_definition(dim, k)
        assert abs(value[i].item() - expected) <= 2e-12 * max(1, abs(expected))
        assert gradient[i].item() == pytest.approx(-resultant_by_definition(dim, k), rel=1e-12)


@pytest.mark.parametrize("dim", DIMS)
def test_float32_loses_no_more_than_its_rounding(dim):
    kappa = double(*CONCENTRATIONS)
    single = kappa.float().requires_grad_()
    value = log_normaliser(dim, single)
    value.sum().backward()
    assert value.dtype == single.grad.dtype == torch.float32
    torch.testing.assert_close(value.double(), log_normaliser(dim, single.detach().double()), rtol=1.2e-7, atol=1e-7)
    torch.testing.assert_close(single.grad.double(), -mean_resultant_length(dim, kappa), rtol=2e-7, atol=0)


@pytest.mark.parametrize("dim", DIMS)
def test_without_concentration_the_density_is_one_over_the_sphere_area(dim):
    kappa = torch.zeros((), dtype=torch.float64, requires_grad=True)
    value = log_normaliser(dim, kappa)
    value.backward()
    log_area = math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)
    assert value.item() == pytest.approx(-log_area, rel=1e-12)
    assert kappa.grad.item() == 0


def test_gradcheck_of_the_log_normaliser():
    kappa = double(0.01, 0.7, 20, 300).requires_grad_()
    for dim in (2, 5, 64):
        assert torch.autograd.gradcheck(lambda k, dim=dim: log_normaliser(dim, k), (kappa,))


def test_three_dimensions_by_hand():
    # C_3 = kappa / (4 pi sinh kappa), A_3 = coth kappa - 1 / kappa.
    assert log_normaliser(3, double(2)).item() == pytest.approx(math.log(2 / (4 * math.pi * math.sinh(2))))
    assert mean_resultant_length(3, double(2)).item() == pytest.approx(1 / math.tanh(2) - 0.5)


@pytest.mark.parametrize("dim", [2, 3, 512])
@pytest.mark.parametrize("kappa", [0.0, 5.0, 2000.0])
def test_angles_follow_the_density(dim, kappa):
    torch.manual_seed(dim)
    count = 5000
    angles = von_mises_fisher._draw_angle(dim, torch.full((count,), kappa, dtype=torch.float64)).sort().values.numpy()
    theta, probability = angle_density(dim, kappa)
    distribution = np.interp(angles, theta, up_to(probability))
    # Kolmogorov-Smirnov: exceeded by 1 in 1,000 right samplers.
    assert np.abs(distribution - (np.arange(count) + 0.5) / count).max() < 1.95 / math.sqrt(count)


@pytest.mark.slow
@pytest.mark.parametrize("dim", [2, 3, 8, 512])
@pytest.mark.parametrize("kappa", [0.0, 0.5, 30.0, 2000.0])
def test_samples_have_the_mean_and_the_covariance_of_theory(dim, kappa):
    torch.manual_seed(1)
    count, mean = 4000, direction(dim)
    drawn = sample(mean, torch.tensor(kappa, dtype=torch.float64), count)
    assert drawn.shape == (count, dim)
    torch.testing.assert_close(drawn.norm(dim=-1), torch.ones(count).double(), rtol=0, atol=1e-12)
    resultant = mean_resultant_length(dim, double(kappa)).item()
    along, other = drawn @ mean, direction(dim, seed=7)
    # E[zz^T] = A / kappa I + (1 - d A / kappa) mu mu^T, A / kappa = 1 / d at kappa = 0.
    ratio = resultant / kappa if kappa else 1 / dim
    cosine = (other @ mean).item()
    for values, expected in [
        (along, resultant),
        (drawn @ other, resultant * cosine),
        ((drawn @ other).square(), ratio + (1 - dim * ratio) * cosine**2),
    ]:
        standard_error = values.std().item() / math.sqrt(count)
        assert abs(values.mean().item() - expected) < 4 * standard_error


@pytest.mark.parametrize("dim", [2, 3, 8, 512])
@pytest.mark.parametrize("kappa", [0.0, 0.5, 30.0, 2000.0])
def test_the_slope_of_an_angle_keeps_its_quantile(dim, kappa):
    theta, probability = angle_density(dim, kappa)
    resultant = mean_resultant_length(dim, double(kappa)).item()
    by_kappa = up_to((np.cos(theta) - resultant) * probability)
    at = np.searchsorted(up_to(probability), [0.001, 0.1, 0.4, 0.6, 0.9, 0.999])
    expected = -by_kappa[at] / (probability[at] / (theta[1] - theta[0]))
    slope = von_mises_fisher._angle_slope(dim, torch.from_numpy(theta[at]), torch.full((6,), kappa).double())
    # The error allowed is that of the cells.
    np.testing.assert_allclose(slope.numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("kappa", [1e-3, 1.0, 50.0, 1e4, 1e6])
def test_the_slope_in_three_dimensions_is_that_of_the_inverse_distribution_function(kappa):
    # 1 - cos theta = -log(q + (1 - q) exp(-2 kappa)) / kappa at the quantile 1 - q.
    q = torch.linspace(0.02, 0.98, 9, dtype=torch.float64)
    k = torch.full_like(q, kappa).requires_grad_()
    loss = -torch.log1p((1 - q) * torch.expm1(-2 * k)) / k
    theta = 2 * (loss / 2).sqrt().asin()
    (expected,) = torch.autograd.grad(theta.sum(), k)
    slope = von_mises_fisher._angle_slope(3, theta.detach(), k.detach())
    torch.testing.assert_close(slope, expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("dim", [2, 3, 32])
@pytest.mark.parametrize("kappa", [0.5, 20.0])
def test_gradients_of_samples_are_those_of_the_expectation(dim, kappa):
    torch.manual_seed(2)
    groups, per_group = 50, 50
    mean, other, step = direction(dim), direction(dim, seed=5), 1e-5
    sideways = functional.normalize(direction(dim, seed=6), dim=0)

    def expectation(mean: Tensor, kappa: float) -> float:
        """E[z.o + (z.o)^2] in closed form."""
        resultant = mean_resultant_length(dim, double(kappa)).item()
        cosine = (functional.normalize(mean, dim=0) @ other).item()
        return resultant * cosine + resultant / kappa + (1 - dim * resultant / kappa) * cosine**2

    means = mean.expand(groups, dim).clone().requires_grad_()
    kappas = torch.full((groups,), kappa, dtype=torch.float64, requires_grad=True)
    cosine = sample(means, kappas, per_group) @ other
    (cosine + cosine.square()).mean(0).sum().backward()
    for estimates, expected in [
        (kappas.grad, (expectation(mean, kappa + step) - expectation(mean, kappa - step)) / (2 * step)),
        (
            means.grad @ sideways,
            (expectation(mean + step * sideways, kappa) - expectation(mean - step * sideways, kappa)) / (2 * step),
        ),
    ]:
        standard_error = estimates.std().item() / math.sqrt(groups)
        assert abs(estimates.mean().item() - expected) < 4 * standard_error + 1e-8


def test_samples_turn_with_their_mean():
    dim = 16
    rotation = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(3))).Q
    mean = direction(dim)
    torch.manual_seed(4)
    at_mean = sample(mean, torch.tensor(25.0), 3000)
    torch.manual_seed(4)
    at_turned = sample(rotation @ mean, torch.tensor(25.0), 3000)
    torch.testing.assert_close(at_turned @ (rotation @ mean), at_mean @ mean)
    difference = at_turned.mean(0) - at_mean.mean(0) @ rotation.T
    assert difference.norm() < 4 * math.sqrt(2 * dim / 3000 / 25)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [2, 3, 64, 2048])
def test_extreme_concentrations_give_finite_samples_and_gradients(dim, dtype):
    torch.manual_seed(5)
    values = [0.0, 1e-6, 1.0, 1e6, 1e12, math.inf]
    mean = (3 * torch.randn(len(values), dim)).to(dtype).requires_grad_()
    kappa = torch.tensor(values, dtype=dtype, requires_grad=True)
    drawn = sample(mean, kappa, 20)
    assert drawn.dtype == dtype and drawn.shape == (20, len(values), dim)
    torch.testing.assert_close(drawn.norm(dim=-1), torch.ones_like(drawn[..., 0]), rtol=0, atol=1e-5)
    unit = functional.normalize(mean.detach(), dim=-1)
    assert torch.equal(drawn[:, -1], unit[-1].expand(20, dim))
    assert ((drawn[:, 4] - unit[4]).norm(dim=-1) < 1e-4).all()
    (drawn * torch.randn_like(drawn)).sum().backward()
    assert kappa.grad.isfinite().all() and mean.grad.isfinite().all()
    assert kappa.grad[-1] == 0 and kappa.grad[2] != 0


def test_batches_are_drawn_independently_and_repeat_under_a_seed():
    mean, kappa = torch.randn(4, 5, 8), torch.full((4, 5), 10.0)
    torch.manual_seed(6)
    first = sample(mean, kappa, 3)
    assert first.shape == (3, 4, 5, 8)
    assert len(first.reshape(-1, 8).unique(dim=0)) == 60
    torch.manual_seed(6)
    assert torch.equal(sample(mean, kappa, 3), first)


def test_a_concentration_that_is_no_number_shows():
    drawn = sample(torch.eye(4)[:2], torch.tensor([math.nan, 3.0]), 5)
    assert drawn[:, 0].isnan().all() and drawn[:, 1].isfinite().all()
    assert log_normaliser(4, torch.tensor(math.nan)).isnan()


def test_one_dimension_is_refused():
    with pytest.raises(ValueError, match="at least 2 dimensions, not 1"):
        sample(torch.ones(3, 1), torch.ones(3), 2)
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        log_normaliser(1, torch.ones(3))
