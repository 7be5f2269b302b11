"""Random numbers from a counter-based generator: every number is a pure function of (seed, stream, position).

The generator is Threefry4x32 with 13 rounds (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
1, 2, 3", SC 2011). The key is (seed, stream), 64 bits each; the counter is the position. Each draw (an array of
numbers, a dropout mask, a permutation) takes the generator's next stream and reads it from its start, so the numbers
are the same for every thread count, ISA build, run and platform, and can be produced again from two integers.
"""

import math
import operator
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fastnn import _arrays, _kernels

__all__ = ["Generator", "Source", "as_generator", "default_generator", "manual_seed", "threefry4x32"]

Array = npt.NDArray[Any]
Shape = int | Sequence[int]


class Source(Protocol):
    """What draws uniform and normal arrays with the signatures of `Generator`."""

    def uniform(self, shape: Shape, low: float = 0.0, high: float = 1.0, *, dtype: npt.DTypeLike = ...) -> Array: ...
    def normal(self, shape: Shape, mean: float = 0.0, std: float = 1.0, *, dtype: npt.DTypeLike = ...) -> Array: ...


class Generator(_kernels.StreamCounter):
    """A source of random arrays; its whole state is a seed and the number of streams already taken.

    It may be shared between threads: every draw takes the next stream by one atomic step, so no two draws ever see
    the same numbers (which thread gets which stream is up to the scheduler; give each thread a generator of its own
    from `spawn` where that matters).

    Parameters
    ----------
    seed : int
        0 ≤ seed < 2**64. Different seeds give unrelated numbers.

    Raises
    ------
    ValueError
        If `seed` is out of range.
    TypeError
        If `seed` is not an integer.

    Examples
    --------
    >>> import fastnn
    >>> generator = fastnn.Generator(7)
    >>> generator.uniform(3)
    array([0.5870795 , 0.44914776, 0.18554544], dtype=float32)
    >>> generator.state_dict()
    {'seed': 7, 'stream': 1}
    """

    def __init__(self, seed: int) -> None:
        self._set(_word(seed, "seed"), 0)

    def __repr__(self) -> str:
        return f"Generator(seed={self.seed}, stream={self.stream})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.seed,), self.state_dict()

    def __setstate__(self, state: dict[str, int]) -> None:
        self.load_state_dict(state)

    def uniform(self, shape: Shape, low: float = 0.0, high: float = 1.0, *, dtype: npt.DTypeLike = np.float32) -> Array:
        """Numbers uniform in [low, high): low + (high − low)·u, u with 24 (float32) or 53 (float64) random bits.

        NumPy's `Generator.uniform` has float64 only and may round up to `high`; here no value reaches it, unless
        ``low == high``.

        Parameters
        ----------
        shape : int or sequence of int
            Shape of the result.
        low, high : float, default 0 and 1
            The interval; low ≤ high.
        dtype : float32 (default) or float64
            Of the result.

        Raises
        ------
        ValueError
            If the bounds are not finite, are in the wrong order, or their difference overflows the dtype.

        Examples
        --------
        >>> import fastnn
        >>> fastnn.Generator(1).uniform((2, 2), -1, 1)
        array([[ 0.37743247,  0.4655639 ],
               [ 0.10375261, -0.46171474]], dtype=float32)
        """
        out = _arrays.empty(shape, _float_type(dtype))
        low, high = _arrays.number(low, "low"), _arrays.number(high, "high")
        if not low <= high:
            raise ValueError(f"low must not be more than high, got low={low}, high={high}")
        first, width, top = _kernels.uniform_interval(low, high, out.dtype == np.float32)
        if not math.isfinite(width):
            raise ValueError(
                f"low and high must be finite and less than {out.dtype}'s range apart, got {low} and {high}"
            )
        _kernels.fill_uniform(out, self.seed, self.take(), first, width, top)
        return out

    def normal(self, shape: Shape, mean: float = 0.0, std: float = 1.0, *, dtype: npt.DTypeLike = np.float32) -> Array:
        """Numbers from the normal distribution, x = μ + σ ε with ε ~ N(0, 1), by the method of Box and Muller.

        The values need no mathematical library and are the same bits on every platform. \\|ε\\| reaches 6.66 in float32
        and 8.65 in float64 (the probability of more is 2⁻³⁵ and 2⁻⁵⁶).

        Parameters
        ----------
        shape : int or sequence of int
            Shape of the result.
        mean, std : float, default 0 and 1
            μ and σ, both finite, σ ≥ 0.
        dtype : float32 (default) or float64
            Of the result.

        Raises
        ------
        ValueError
            If `mean` or `std` is not finite or `std` is negative.

        Examples
        --------
        >>> import fastnn
        >>> fastnn.Generator(1).normal(3)
        array([ 0.0643913 , -0.24539444, -1.085436  ], dtype=float32)
        """
        out = _arrays.empty(shape, _float_type(dtype))
        mean, std = _arrays.finite(mean, "mean"), _arrays.number(std, "std")
        if not 0 <= std < math.inf:
            raise ValueError(f"std must be finite and at least 0, got {std}")
        _kernels.fill_normal(out, self.seed, self.take(), mean, std)
        return out

    def words(self, shape: Shape) -> Array:
        """Raw 32-bit words of the stream, as uint32.

        Examples
        --------
        >>> import fastnn
        >>> fastnn.Generator(0).words(2)
        array([1394376271, 3330432074], dtype=uint32)
        """
        out = _arrays.empty(shape, np.uint32)
        _kernels.fill_words(out, self.seed, self.take())
        return out

    def permutation(self, n: int) -> Array:
        """The numbers 0 … n−1 in random order, int64, all orders equally likely (Fisher and Yates's shuffle).

        Examples
        --------
        >>> import fastnn
        >>> fastnn.Generator(1).permutation(5)
        array([4, 0, 1, 2, 3])
        """
        count = _arrays.integer(n, "n")
        if not 0 <= count < 2**32:  # before a stream is taken
            raise ValueError(f"n must be at least 0 and below 2**32, got {count}")
        return _kernels.permutation(count, self.seed, self.take())

    def spawn(self, n: int) -> list["Generator"]:
        """`n` new generators, unrelated to each other and to this one; their seeds are this one's next stream.

        Examples
        --------
        >>> import fastnn
        >>> fastnn.Generator(1).spawn(2)
        [Generator(seed=..., stream=0), Generator(seed=..., stream=0)]
        """
        count = _arrays.integer(n, "n")
        if not 0 <= count < 2**32:  # before a stream is taken
            raise ValueError(f"n must be at least 0 and below 2**32, got {count}")
        words = self.words((count, 2)).astype(np.uint64)
        return [type(self)(int(high << np.uint64(32) | low)) for high, low in words]

    def state_dict(self) -> dict[str, int]:
        """The state: ``seed`` and ``stream``, the number of streams taken so far.

        Examples
        --------
        >>> import fastnn
        >>> fastnn.Generator(3).state_dict()
        {'seed': 3, 'stream': 0}
        """
        return {"seed": self.seed, "stream": self.stream}

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        """Take up the state `d`, a mapping as `state_dict` returns it (arrays of one element will do as numbers).

        Raises
        ------
        ValueError
            If a key is missing or unexpected, or a value out of range; the state is then as before.

        Examples
        --------
        >>> import fastnn
        >>> a, b = fastnn.Generator(3), fastnn.Generator(4)
        >>> _ = a.uniform(5)
        >>> b.load_state_dict(a.state_dict())
        >>> bool((a.uniform(5) == b.uniform(5)).all())
        True
        """
        if not isinstance(d, Mapping):
            raise TypeError(f"d must be a mapping as state_dict returns it, got {type(d).__name__}")
        if set(d) != {"seed", "stream"}:
            raise ValueError(f"a generator's state has the keys seed and stream, got {sorted(d)}")
        self._set(_word(d["seed"], "seed"), _word(d["stream"], "stream"))


def _word(value: Any, name: str) -> int:
    """An integer of 64 bits."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}") from None
    if not 0 <= number < 2**64:
        raise ValueError(f"{name} must be at least 0 and below 2**64, got {number}")
    return number


def _float_type(dtype: npt.DTypeLike) -> "np.dtype[Any]":
    if dtype is np.float32 or dtype is np.float64:
        return np.dtype(dtype)
    chosen = np.dtype(dtype)
    if chosen != np.float32 and chosen != np.float64:
        raise TypeError(f"dtype must be float32 or float64, got {chosen}")
    return chosen.newbyteorder("=")


class _NumpySource:
    """A `numpy.random.Generator` behind our signatures."""

    def __init__(self, rng: "np.random.Generator") -> None:  # in quotes: numpy.random is loaded where it is used
        self._rng = rng

    def uniform(self, shape: Shape, low: float = 0.0, high: float = 1.0, *, dtype: npt.DTypeLike = np.float32) -> Array:
        real = _float_type(dtype)
        x: Array = self._rng.random(_tuple(shape), real) * real.type(high - low) + real.type(low)
        return x

    def normal(self, shape: Shape, mean: float = 0.0, std: float = 1.0, *, dtype: npt.DTypeLike = np.float32) -> Array:
        real = _float_type(dtype)
        x: Array = self._rng.standard_normal(_tuple(shape), real) * real.type(std) + real.type(mean)
        return x


def _tuple(shape: Shape) -> tuple[int, ...]:
    return tuple(shape) if isinstance(shape, Sequence) else (operator.index(shape),)


# Where nobody gave a seed, runs differ, as in PyTorch and NumPy.
_default = Generator(int.from_bytes(os.urandom(8), "little"))


def default_generator() -> Generator:
    """The generator that everything draws from which was not given one; seeded by the operating system.

    Examples
    --------
    >>> import fastnn.random
    >>> fastnn.random.default_generator() is fastnn.random.default_generator()
    True
    """
    return _default


def manual_seed(seed: int) -> Generator:
    """Set the default generator to the start of `seed`, in place, and return it; as `torch.manual_seed`.

    Parameters
    ----------
    seed : int
        0 ≤ seed < 2**64.

    Examples
    --------
    >>> import fastnn
    >>> fastnn.manual_seed(0)
    Generator(seed=0, stream=0)
    """
    _default.load_state_dict({"seed": seed, "stream": 0})
    return _default


def as_generator(rng: "Source | np.random.Generator | int | None" = None) -> Source:
    """What the parameter `rng` of initialisers and layers stands for, as something with ``uniform`` and ``normal``.

    None is the default generator, an integer a fresh `Generator` with that seed; a `Generator`, or what this function
    returned, is taken as it is; a `numpy.random.Generator` is wrapped.

    Parameters
    ----------
    rng : Generator, numpy.random.Generator, int or None
        What to draw from.

    Raises
    ------
    TypeError
        If `rng` is anything else.

    Examples
    --------
    >>> import fastnn.random
    >>> fastnn.random.as_generator(5)
    Generator(seed=5, stream=0)
    """
    if rng is None:
        return _default
    if isinstance(rng, Generator | _NumpySource):
        return rng
    numpy_random = sys.modules.get("numpy.random")  # NumPy loads it on demand, and so do we
    if numpy_random is not None and isinstance(rng, numpy_random.Generator):
        return _NumpySource(rng)
    if isinstance(rng, int | np.integer) and not isinstance(rng, bool):
        return Generator(int(rng))
    raise TypeError(
        f"rng must be a fastnn.Generator, a numpy.random.Generator, an integer or None, got {type(rng).__name__}"
    )


def threefry4x32(counter: Sequence[int], key: Sequence[int], rounds: int = 20) -> tuple[int, int, int, int]:
    """The bare block function: four 32-bit words from a counter and a key of four words each.

    It is the code that all draws run (with 13 rounds), shown for known-answer tests.

    Parameters
    ----------
    counter, key : sequence of 4 int
        32-bit words.
    rounds : int, default 20
        0 to 20.

    Raises
    ------
    ValueError
        If there are not four words, one does not fit 32 bits, or `rounds` is out of range.

    Examples
    --------
    >>> import fastnn.random
    >>> [f"{word:08x}" for word in fastnn.random.threefry4x32((0, 0, 0, 0), (0, 0, 0, 0))]
    ['9c6ca96a', 'e17eae66', 'fc10ecd4', '5256a7d8']
    """
    count = _arrays.integer(rounds, "rounds")
    if not 0 <= count <= 20:
        raise ValueError(f"rounds must be between 0 and 20, got {count}")
    for name, words in (("counter", counter), ("key", key)):
        for word in _arrays.integers(words, name):
            if not 0 <= word < 2**32:
                raise ValueError(f"{name} must hold words of at least 0 and below 2**32, got {word}")
    return _kernels.threefry4x32(counter, key, count)
