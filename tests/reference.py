"""Slow oracles in plain Python ints and fractions, written from the definitions and sharing nothing with scdask."""

from fractions import Fraction

M64 = 2**64 - 1


def pack(bits):
    """One stream's bits as words, LSB first."""
    return [sum(int(b) << i for i, b in enumerate(bits[t : t + 64])) for t in range(0, len(bits), 64)]


def unpack(words, length):
    return [int(words[t // 64]) >> (t % 64) & 1 for t in range(length)]


def ones(words):
    return sum(int(w).bit_count() for w in words)


def threefry2x64_13(key, counter):
    """Threefry2x64 with 13 rounds, as Salmon et al. (SC 2011) define it."""
    rotations = [16, 42, 12, 31, 16, 32, 24, 21]
    keys = [*key, 0x1BD11BDAA9FC1A22 ^ key[0] ^ key[1]]
    x = [(c + k) & M64 for c, k in zip(counter, keys, strict=False)]
    for i in range(13):
        x[0] = (x[0] + x[1]) & M64
        r = rotations[i % 8]
        x[1] = ((x[1] << r | x[1] >> (64 - r)) & M64) ^ x[0]
        if i % 4 == 3:
            j = i // 4 + 1
            x[0] = (x[0] + keys[j % 3]) & M64
            x[1] = (x[1] + keys[(j + 1) % 3] + j) & M64
    return tuple(x)


def sfc64(a, b, c):
    """SFC64 as Doty-Humphrey defines it, its counter from 1."""
    for counter in range(1, 65):
        number = (a + b + counter) & M64
        a, b = b ^ b >> 11, (c + (c << 3)) & M64
        c = ((c << 24 | c >> 40) + number) & M64
        yield number


def bernoulli_number(seed, shared, stream, t):
    """The uniform number of bit t as a fraction, one binary digit of each word of SFC64, which Threefry starts."""
    word, lane = divmod(t, 64)
    a, b = threefry2x64_13((seed, int(shared)), (stream, word))
    number = 0
    for random in sfc64(a, b, a ^ ((b << 24 | b >> 40) & M64)):
        number = number << 1 | random >> lane & 1
    return Fraction(number, 2**64)


def lfsr(state, width, taps, shift, steps):
    states = []
    for _ in range(steps):
        states.append(state)
        if shift == "left":
            feedback = sum(state >> (tap - 1) for tap in taps) & 1
            state = (state << 1 | feedback) & (2**width - 1)
        else:
            feedback = sum(state >> (width - tap) for tap in taps) & 1
            state = state >> 1 | feedback << (width - 1)
    return states


def radical_inverse(n, base):
    result, scale = Fraction(0), Fraction(1, base)
    while n:
        n, digit = divmod(n, base)
        result += digit * scale
        scale /= base
    return result


def mac(weights, inputs, gate, length):
    """Counts (batch, neurons) of products of bit lists: weights [neuron][input][bit], inputs [batch][input][bit]."""
    same = (lambda a, b: a & b) if gate == "and" else (lambda a, b: 1 - (a ^ b))
    return [
        [sum(same(int(x[i][t]), int(w[i][t])) for i in range(len(w)) for t in range(length)) for w in weights]
        for x in inputs
    ]
