"""Intervals that hold the true value in 95 of 100 campaigns: of shares, and of means over repeats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.special import ndtri, stdtrit

from ..errors import SweepError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Kind = Literal["t", "bootstrap"]

CONFIDENCE = 0.95
RESAMPLES = 2000
KINDS: tuple[Kind, ...] = ("t", "bootstrap")


def wilson(right: ArrayLike, samples: ArrayLike, confidence: float = CONFIDENCE) -> tuple[Any, Any]:
    """The interval of a share by Wilson's score.

    Parameters
    ----------
    right, samples : array_like of int
        How many samples there were, and how many of them were right. Without samples the interval is nan.
    confidence : float
        Between 0 and 1.

    Returns
    -------
    low, high : ndarray of float

    Raises
    ------
    SweepError
        If more are right than there are, or fewer than none, or the confidence is none.

    Notes
    -----
    With the share p of n and the quantile z it is (p + z² / 2n ± z sqrt(p (1 - p) / n + z² / 4n²)) / (1 + z² / n):
    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", J. Am. Stat. Assoc. 22 (1927).

    Examples
    --------
    >>> low, high = wilson(525, 540)
    >>> round(float(low), 3), round(float(high), 3)
    (0.955, 0.983)
    """
    k, n = np.asarray(right, np.float64), np.asarray(samples, np.float64)
    if ((k < 0) | (k > n)).any():
        raise SweepError("of some samples, from 0 to all can be right")
    z = ndtri((1 + _checked(confidence)) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = _score(k / n, n, z)
    # At the ends the exact bound is 0 or 1, which rounding misses.
    none = np.where(n > 0, 0.0, np.nan)
    return np.where(k == 0, none, low), np.where(k == n, none + 1, high)


def _score(p: Any, n: Any, z: Any) -> tuple[Any, Any]:
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return middle - half, middle + half


def of_shares(right: ArrayLike, samples: ArrayLike, confidence: float = CONFIDENCE) -> tuple[Any, Any]:
    """The interval of a share over repeats, which is the last axis: what repeats with other seeds would give.

    The samples of a repeat are not independent, as they have its generators in common: 540 images that a bad seed
    reads are 540 mistakes. So the repeats say how far the share varies, and with it how many independent samples
    there seem to be; Wilson's score is of so many.

    Parameters
    ----------
    right, samples : array_like of int, shape (..., repeats)
        How many samples each repeat had, and how many of them were right. Without samples it is none.
    confidence : float
        Between 0 and 1.

    Returns
    -------
    low, high : ndarray of float, shape (...)
        nan where there are fewer than two repeats. If all repeats have the same share, both are that, as of sequences
        that seeds do not change; unless independent samples would agree as well, and then Wilson's score is of all.

    Raises
    ------
    SweepError
        If the confidence is none.

    Notes
    -----
    With p of all N samples the variance is S / (S - 1) sum n_i**2 (p_i - p)**2 / N**2 over S repeats, p (1 - p) over it
    the effective number of samples (L. Kish, "Survey Sampling", 1965), and the quantile Student's with S - 1 degrees of
    freedom, as for other proportions in clusters: E. L. Korn and B. I. Graubard, Survey Methodology 24 (1998).

    Examples
    --------
    >>> low, high = of_shares([520, 500, 530], [540, 540, 540])
    >>> round(float(low), 3), round(float(high), 3)
    (0.826, 0.99)
    """
    k, n = np.asarray(right, np.float64), np.asarray(samples, np.float64)
    repeats, total = (n > 0).sum(axis=-1), n.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = k.sum(axis=-1) / total
        deviations = k - n * p[..., None]
        variance = repeats / (repeats - 1) * (deviations**2).sum(axis=-1) / total**2
        low, high = _score(
            p, p * (1 - p) / variance, stdtrit(np.maximum(repeats - 1, 1), (1 + _checked(confidence)) / 2)
        )
        alike = np.where(repeats > 1, p, np.nan)
    varies = variance > 1e-24
    low, high = np.where(varies, low, alike), np.where(varies, high, alike)
    by_chance = ~varies & (repeats > 1) & (_chance_to_agree(p, total, repeats) > 1 - confidence)
    if by_chance.any():
        theirs = wilson(k.sum(axis=-1), total, confidence)
        low, high = (np.where(by_chance, new, old) for new, old in zip(theirs, (low, high), strict=True))
    return low, high


def _chance_to_agree(p: Any, total: Any, repeats: Any) -> Any:
    """The probability, at the most, that repeats of independent samples, `total` in all, have the same share p."""
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt(2 * np.pi * total / repeats * p * (1 - p))  # The mode of a binomial is one over it, about.
        return np.minimum(1, 1 / spread) ** (repeats - 1)


def of_mean(values: ArrayLike, kind: Kind = "t", confidence: float = CONFIDENCE) -> tuple[Any, Any]:
    """The interval of a mean over the last axis.

    Parameters
    ----------
    values : array_like of float, shape (..., repeats)
        Independent of each other; nan is none.
    kind : {"t", "bootstrap"}
        Student's t, for values that are about normal; or the percentiles of 2,000 resamples, which are the same in each
        call.
    confidence : float
        Between 0 and 1.

    Returns
    -------
    low, high : ndarray of float, shape (...)
        nan where there are fewer than two values.

    Raises
    ------
    SweepError
        If the kind or the confidence is none, or there is one value that is not in an array.

    Notes
    -----
    mean ± t s / sqrt(n), with the sample's standard deviation s and n - 1 degrees of freedom: "Student", "The probable
    error of a mean", Biometrika 6 (1908). The bootstrap is B. Efron's: Ann. Statist. 7 (1979).

    Examples
    --------
    >>> low, high = of_mean([1.0, 2.0, 3.0])
    >>> round(float(low), 2), round(float(high), 2)
    (-0.48, 4.48)
    """
    confidence = _checked(confidence)
    if kind not in KINDS:
        raise SweepError(f"the interval of a mean is by {' or '.join(KINDS)}, not {kind!r}")
    x = np.asarray(values, np.float64)
    if not x.ndim:
        raise SweepError(f"the interval of a mean is one of several values, not of {values!r}")
    there = ~np.isnan(x)
    n = there.sum(axis=-1)
    if kind == "bootstrap":
        return _bootstrap(x, n, confidence)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(there, x, 0).sum(axis=-1) / n
        deviations = np.where(there, x - mean[..., None], 0)
        error = np.sqrt((deviations**2).sum(axis=-1) / ((n - 1) * n))
        half = np.where(n > 1, stdtrit(np.maximum(n - 1, 1), (1 + confidence) / 2) * error, np.nan)
    return mean - half, mean + half


def _bootstrap(x: NDArray[np.float64], n: NDArray[np.intp], confidence: float) -> tuple[Any, Any]:
    from scipy.stats import bootstrap

    low, high = (np.full(x.shape[:-1], np.nan) for _ in range(2))
    for index in np.ndindex(x.shape[:-1]):
        row = x[index]
        row = row[~np.isnan(row)]
        if n[index] > 1:
            with np.errstate(invalid="ignore"):
                found = bootstrap(
                    (row,),
                    np.mean,
                    confidence_level=confidence,
                    n_resamples=RESAMPLES,
                    method="percentile",
                    rng=np.random.default_rng(0),
                )
            low[index], high[index] = found.confidence_interval
    return low, high


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise SweepError(f"a confidence is between 0 and 1, not {confidence!r}")
    return confidence
