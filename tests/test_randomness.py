"""The statistical quality of Bernoulli streams: chi-square, correlations, and tests of NIST SP 800-22 rev. 1a."""

import numpy as np
import pytest
from scipy import special, stats

import scdask as sc
from scdask import vector_ops

pytestmark = pytest.mark.slow

STREAMS, LENGTH = 100_000, 256
ALPHA = 1e-4
SEEDS = (0, 1, 2**64 - 1)


def streams(p, seed):
    return sc.encode(np.full(STREAMS, p), LENGTH, sng=sc.Bernoulli(seed))


def assert_standard_normal(z):
    """Of independent standard normal numbers, the largest is this large by chance only in one of 1 / ALPHA cases."""
    z = np.atleast_1d(z)
    assert np.abs(z).max() < stats.norm.isf(ALPHA / 2 / z.size)


@pytest.mark.parametrize("p", [0.5, 0.3, 1 / 3, 0.013, 0.9])
@pytest.mark.parametrize("seed", SEEDS)
def test_counts_are_binomial(p, seed):
    seen = np.bincount(streams(p, seed).popcount(), minlength=LENGTH + 1)
    expected = stats.binom.pmf(np.arange(LENGTH + 1), LENGTH, p) * STREAMS
    common = expected >= 10
    seen = np.append(seen[common], seen[~common].sum())
    expected = np.append(expected[common], expected[~common].sum())
    assert stats.chisquare(seen, expected * seen.sum() / expected.sum()).pvalue > ALPHA


@pytest.mark.parametrize("seed", SEEDS)
def test_neighbours_are_uncorrelated(seed):
    """SCC of streams i and i + 1 (Alaghband & Hayes 2013); the variance of the covariance is 1 / (16 N) at p = 1/2."""
    x = streams(0.5, seed)
    a, b = x[:-1:2], x[1::2]
    pa, pb, both = (s.popcount() / LENGTH for s in (a, b, a & b))
    excess = both - pa * pb
    room = np.where(excess > 0, np.minimum(pa, pb) - pa * pb, pa * pb - np.maximum(pa + pb - 1, 0))
    scc = excess / room
    assert_standard_normal(scc.mean() / scc.std() * np.sqrt(scc.size))
    assert scc.std() == pytest.approx(LENGTH**-0.5, rel=0.1)
    assert excess.var() * 16 * LENGTH == pytest.approx(1 - 1 / LENGTH, abs=4 * np.sqrt(2 / excess.size))


@pytest.mark.parametrize("other", [sc.Bernoulli(1), sc.Bernoulli(2**32), sc.Bernoulli(0, shared=True)])
def test_other_seeds_are_uncorrelated(other):
    p, n = 0.3, STREAMS * LENGTH
    y = sc.encode(np.full(STREAMS, p), LENGTH, sng=other)
    both = vector_ops.vec_popcount((streams(p, 0) & y).words)
    given = vector_ops.vec_popcount(y.words)
    assert_standard_normal((both - p * given) / np.sqrt(p * (1 - p) * given))
    assert n > given > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_bits_are_uncorrelated_in_time(seed):
    p = 0.3
    bits = streams(p, seed).unpack().astype(np.float32) - np.float32(p)
    lags = np.array([1, 2, 3, 7, 8, 31, 32, 63, 64, 65, 127, 128])
    products = np.array([np.einsum("st,st->", bits[:, lag:], bits[:, :-lag], dtype=float) for lag in lags])
    assert_standard_normal(products / (p * (1 - p) * np.sqrt(STREAMS * (LENGTH - lags))))


def one_stream(seed, length=2**22):
    return sc.encode(0.5, length, sng=sc.Bernoulli(seed)).unpack()


def many_streams(seed):
    return sc.encode(np.full(2**16, 0.5), 64, sng=sc.Bernoulli(seed)).unpack().reshape(-1)


@pytest.mark.parametrize("sequence", [one_stream, many_streams])
@pytest.mark.parametrize("seed", SEEDS)
def test_nist_monobit(sequence, seed):
    """Section 2.1."""
    bits = sequence(seed)
    assert special.erfc(abs(2 * int(bits.sum()) - bits.size) / np.sqrt(2 * bits.size)) > ALPHA


@pytest.mark.parametrize("sequence", [one_stream, many_streams])
@pytest.mark.parametrize("seed", SEEDS)
def test_nist_runs(sequence, seed):
    """Section 2.3."""
    bits = sequence(seed)
    n, share = bits.size, bits.mean()
    runs = 1 + np.count_nonzero(bits[1:] != bits[:-1])
    both = share * (1 - share)
    assert special.erfc(abs(runs - 2 * n * both) / (2 * np.sqrt(2 * n) * both)) > ALPHA


@pytest.mark.parametrize("sequence", [one_stream, many_streams])
@pytest.mark.parametrize("seed", SEEDS)
def test_nist_serial(sequence, seed):
    """Section 2.11, with overlapping patterns of up to 12 bits."""
    bits, m = sequence(seed), 12
    psi = [psi_squared(bits, m - i) for i in range(3)]
    assert special.gammaincc(2 ** (m - 2), (psi[0] - psi[1]) / 2) > ALPHA
    assert special.gammaincc(2 ** (m - 3), (psi[0] - 2 * psi[1] + psi[2]) / 2) > ALPHA


def psi_squared(bits, m):
    n = bits.size
    around = np.append(bits, bits[: m - 1]).astype(np.int64)
    patterns = sum(around[i : i + n] << i for i in range(m))
    return (np.bincount(patterns, minlength=2**m).astype(float) ** 2).sum() * 2**m / n - n
