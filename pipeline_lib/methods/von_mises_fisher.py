"""The von Mises-Fisher distribution on the unit sphere of R^d: log-normaliser, mean resultant length, samples.

    vMF(z; mu, kappa) = C_d(kappa) exp(kappa mu^T z),   C_d(kappa) = kappa^v / ((2 pi)^(d/2) I_v(kappa)),   v = d/2 - 1

with I_v the modified Bessel function of the first kind. Its mean is A_d(kappa) mu, A_d = I_(v+1) / I_v, and
d log C_d / d kappa = -A_d(kappa).

Bessel functions come from their uniform (Debye) expansion, DLMF 10.41, at an order of at least 16, where eight terms
are exact to about 1e-12, and from there down to the order wanted by I_(v) / I_(v+1) = 2 (v+1) / kappa +
I_(v+2) / I_(v+1), which damps errors. Both are written in A_d(kappa) / kappa, so that kappa = 0 is no special case.

The angle to the mean is drawn by Wood's rejection scheme (Simulation of the von Mises Fisher distribution, 1994). Its
gradient is the implicit one (Figurnov, Mohamed and Mnih, Implicit Reparameterization Gradients, 2018): no accept step
enters it, so it needs no correction term, and it is exact up to a quadrature error, relatively 1e-7 for concentrations
up to 1e6.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

DEBYE_TERMS = 8
DEBYE_ORDER = 16
QUADRATURE_NODES = 48
# In standard deviations of the angle: what the density has left beyond is below float64's resolution.
QUADRATURE_REACH = 12.0
# At least 0.65 of the proposals are accepted, so that one in 10^29 draws is left after so many rounds.
REJECTION_ROUNDS = 64
TINY = torch.finfo(torch.float64).tiny


def log_normaliser(dim: int, concentration: Tensor) -> Tensor:
    """Return log C_d(kappa) for concentrations kappa >= 0 of any shape and float dtype, in that shape and dtype.

    Computed in float64. Differentiable once: the gradient is -A_d(kappa), 0 at kappa = 0. Not finite at kappa = inf.
    Raises
    ------
    ValueError
        dim is below 2.
    """
    return _LogNormaliser.apply(concentration, _checked(dim))


def mean_resultant_length(dim: int, concentration: Tensor) -> Tensor:
    """Return A_d(kappa) = I_(d/2)(kappa) / I_(d/2-1)(kappa), the length of the mean; shapes as in `log_normaliser`.

    Not differentiable.

    Raises
    ------
    ValueError
        dim is below 2.
    """
    kappa = concentration.detach().double()
    return (kappa * _resultant_over_kappa(_checked(dim), kappa)).to(concentration.dtype)


def sample(mean: Tensor, concentration: Tensor, samples: int) -> Tensor:
    """Draw z = cos(theta) mu + sin(theta) v, v uniform among the unit vectors orthogonal to mu.

    Gradients flow to both parameters: through theta to the concentration, and to the mean as if each sample were
    moved by the smallest rotation that takes mu to its new value.

    Parameters
    ----------
    mean
        [..., d], float32 or float64, d >= 2. Of any length above zero: it is normalised.
    concentration
        [...], kappa >= 0. At 0 the samples are uniform on the sphere, at inf they are the normalised mean.
    samples
        How many to draw, from torch's global generator of the device.

    Returns
    -------
    Unit vectors [samples, ..., d] in the mean's dtype.

    Raises
    ------
    ValueError
        d is below 2.
    """
    dim = _checked(mean.shape[-1])
    mean = functional.normalize(mean, dim=-1)
    cosine, sine = _Direction.apply(concentration.expand(samples, *mean.shape[:-1]), dim, mean.dtype)
    with torch.no_grad():
        tangent = torch.randn(samples, *mean.shape, dtype=mean.dtype, device=mean.device)
        tangent -= (tangent * mean).sum(-1, keepdim=True) * mean
        tangent = functional.normalize(tangent, dim=-1)
    # The second projection removes what rounding left of the mean. Differentiated alone, it is the rotation's gradient;
    # through the first one as well, tangents would turn about the mean, which for d = 3 has infinite variance.
    tangent = tangent - (tangent * mean).sum(-1, keepdim=True) * mean
    return cosine.unsqueeze(-1) * mean + sine.unsqueeze(-1) * tangent


class _LogNormaliser(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, concentration: Tensor, dim: int) -> Tensor:
        ctx.save_for_backward(concentration)
        ctx.dim = dim
        return _log_normaliser(dim, concentration.double()).to(concentration.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (concentration,) = ctx.saved_tensors
        return -gradient * mean_resultant_length(ctx.dim, concentration), None


class _Direction(torch.autograd.Function):
    """Draw (cos theta, sin theta) given concentrations [...]; the gradient is that of `_angle_slope`."""

    @staticmethod
    def forward(ctx: Any, concentration: Tensor, dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        angle = _draw_angle(dim, concentration.double())
        ctx.save_for_backward(angle, concentration)
        ctx.dim = dim
        return angle.cos().to(dtype), angle.sin().to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_cosine: Tensor, by_sine: Tensor) -> tuple[Tensor, None, None]:
        angle, concentration = ctx.saved_tensors
        by_angle = by_sine.double() * angle.cos() - by_cosine.double() * angle.sin()
        gradient = by_angle * _angle_slope(ctx.dim, angle, concentration.double())
        return gradient.to(concentration.dtype), None, None


def _draw_angle(dim: int, kappa: Tensor) -> Tensor:
    """Draw angles theta in [0, pi] of density h(theta) ~ exp(kappa cos theta) sin(theta)^(d-2) by Wood's scheme.

    A proposal is sin^2(theta / 2) = b Z / (1 - (1-b) Z), Z ~ Beta((d-1)/2, (d-1)/2). Written in that, not in the
    cosine, angles are precise at any concentration; kappa b and b are finite for every kappa from 0 to inf.
    """
    kappa_b = (dim - 1) / (2 + (4 + ((dim - 1) / kappa).square()).sqrt())
    b = (dim - 1) / (2 * kappa + (4 * kappa.square() + (dim - 1) ** 2).sqrt())
    shape = torch.full_like(kappa, (dim - 1) / 2)
    # A concentration that is no number gives samples that are none, so that the fault shows in the loss.
    half_sine_squared = torch.where(kappa == math.inf, 0.0, torch.full_like(kappa, math.nan))
    pending = torch.isfinite(kappa)
    for _ in range(REJECTION_ROUNDS):
        if not pending.any():
            break
        z = torch.distributions.Beta(shape, shape, validate_args=False).sample()
        q = ((1 - z) + b * z).clamp_min(TINY)
        log_ratio = 2 * kappa_b * (1 / (1 + b) - z / q) + (dim - 1) * ((1 + b) / (2 * q)).log()
        accepted = pending & (torch.rand_like(kappa).log() <= log_ratio)
        half_sine_squared = torch.where(accepted, b * z / q, half_sine_squared)
        pending = pending & ~accepted
    return 2 * half_sine_squared.sqrt().clamp(max=1).asin()


def _angle_slope(dim: int, theta: Tensor, kappa: Tensor) -> Tensor:
    """Return d theta / d kappa at a fixed value H of the angle's distribution function, in float64.

    - (dH / d kappa) / h = - integral over phi in [0, theta] of (cos phi - A_d) h(phi) / h(theta), which is also the
    integral over [theta, pi]. The side is taken where cos phi - A_d has one sign, so that nothing cancels, and only as
    far as the density reaches.
    """
    finite = torch.isfinite(kappa)
    kappa = torch.where(finite, kappa, 1.0)
    resultant = kappa * _resultant_over_kappa(dim, kappa)
    # Minus the second derivative of log h at its mode, the inverse of the angle's variance.
    s = (dim - 2 + ((dim - 2) ** 2 + 4 * kappa.square()).sqrt()).clamp_min(TINY)
    reach = QUADRATURE_REACH / (2 * kappa.square() / s + s / 2).sqrt()
    theta = theta.clamp(min=TINY)
    below = theta.cos() > resultant
    end = torch.where(below, (theta - reach).clamp(min=0), (theta + reach).clamp(max=math.pi))
    nodes, weights = (torch.from_numpy(part).to(theta) for part in np.polynomial.legendre.leggauss(QUADRATURE_NODES))
    half, theta, kappa, resultant = (part.unsqueeze(-1) for part in ((end - theta) / 2, theta, kappa, resultant))
    phi = theta + half * (1 + nodes)
    # cos phi - cos theta, precise also where both are near 1.
    cosine_gain = -2 * ((phi + theta) / 2).sin() * (half * (1 + nodes) / 2).sin()
    density = torch.exp(kappa * cosine_gain + (dim - 2) * (phi.sin() / theta.sin()).log())
    # Both sides run from theta outwards: `half` is negative below, where the integral's bounds are swapped.
    slope = (half * weights * (phi.cos() - resultant) * density).sum(-1)
    return torch.where(finite, slope, 0.0)


def _log_normaliser(dim: int, kappa: Tensor) -> Tensor:
    """Return log C_d(kappa) in float64, from C_(d+2) / C_d = kappa / (2 pi A_d) and the expansion of a high order."""
    *quotients, _ = _resultants_over_kappa(dim, kappa)
    high = dim + 2 * len(quotients)
    order = high / 2 - 1
    root = (order**2 + kappa.square()).sqrt()
    result = order * (order + root).log() - root + 0.5 * (2 * math.pi * root).log() - _log_debye(order, root)
    result = result - high / 2 * math.log(2 * math.pi)
    return result + sum((2 * math.pi * quotient).log() for quotient in quotients)


def _resultant_over_kappa(dim: int, kappa: Tensor) -> Tensor:
    """Return A_d(kappa) / kappa in float64, 1 / d at kappa = 0."""
    return _resultants_over_kappa(dim, kappa)[0]


def _resultants_over_kappa(dim: int, kappa: Tensor) -> list[Tensor]:
    """Return A_d(kappa) / kappa for the dimensions d = dim, dim + 2, ... up to that of the expansion's order."""
    high = dim + 2 * max(0, math.ceil(DEBYE_ORDER - (dim / 2 - 1)))
    quotients = [_resultant_over_kappa_by_debye(high, kappa)]
    for lower in range(high - 2, dim - 1, -2):
        quotients.append(1 / (lower + kappa.square() * quotients[-1]))
    return quotients[::-1]


def _resultant_over_kappa_by_debye(dim: int, kappa: Tensor) -> Tensor:
    """Return A_d(kappa) / kappa of a high dimension: the quotient of the expansions of the orders d/2 and d/2 - 1."""
    order = dim / 2 - 1
    root, next_root = (order**2 + kappa.square()).sqrt(), ((order + 1) ** 2 + kappa.square()).sqrt()
    # Differences of the two expansions' terms, written so that large ones do not cancel.
    difference = (2 * order + 1) / (root + next_root)
    logarithm = (order + 1 + next_root).log() + order * ((1 + difference) / (order + root)).log1p()
    logarithm = logarithm - difference + 0.5 * (next_root / root).log()
    return (_log_debye(order + 1, next_root) - _log_debye(order, root) - logarithm).exp()


def _log_debye(order: float, root: Tensor) -> Tensor:
    """Return log of the sum over k of u_k(order / root) / order^k, the series of the uniform expansion."""
    p = order / root
    total = torch.zeros_like(p)
    for k, coefficients in enumerate(_debye_polynomials(), start=1):
        polynomial = torch.zeros_like(p)
        for coefficient in reversed(coefficients):
            polynomial = polynomial * p.square() + coefficient
        total = total + polynomial * (p / order) ** k
    return total.log1p()


@functools.cache
def _debye_polynomials() -> tuple[tuple[float, ...], ...]:
    """Return the coefficients of u_k(p) / p^k by powers of p^2, for k = 1, 2, ..., from DLMF 10.41.9.

    u_0 = 1, u_(k+1)(p) = p^2 (1 - p^2) u_k'(p) / 2 + (integral over [0, p] of (1 - 5 t^2) u_k(t)) / 8.
    """
    polynomials: list[tuple[Fraction, ...]] = [(Fraction(1),)]
    for k in range(DEBYE_TERMS):
        upper = [Fraction(0)] * (k + 2)
        for i, coefficient in enumerate(polynomials[-1]):
            power = k + 2 * i
            upper[i] += coefficient * (Fraction(power, 2) + Fraction(1, 8 * (power + 1)))
            upper[i + 1] -= coefficient * (Fraction(power, 2) + Fraction(5, 8 * (power + 3)))
        polynomials.append(tuple(upper))
    return tuple(tuple(map(float, polynomial)) for polynomial in polynomials[1:])


def _checked(dim: int) -> int:
    if dim < 2:
        raise ValueError(f"the von Mises-Fisher distribution needs at least 2 dimensions, not {dim}")
    return dim
