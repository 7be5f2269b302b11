"""Which view (O, A, S, I) of an array a norm takes, and which of the two kernel families then runs.

All norms are one operation over different axes. A C-ordered array is seen as outer × reduced × groups × inner: one
group of statistics for each (o, s), over all a and i. *Rows* kernels reduce along contiguous memory, *columns* kernels
across it (i is then a few elements or one). A new norm is a new view here, not a new kernel.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["View", "axes_view", "batch_view", "group_view", "instance_view", "trailing_view"]

# With fewer contiguous elements than this to reduce, and more than one run of them, columns kernels are quicker.
SHORT_RUN = 16


class View(NamedTuple):
    """How kernels see an array, and which weight belongs to an element."""

    shape: tuple[int, int, int, int]
    """(O, A, S, I)."""
    rows: bool
    """Whether the rows kernels run, else the columns kernels."""
    entries: int
    """Rows: weights for each run of I elements, each shared by I / entries neighbours."""
    period: int
    """Rows: group g uses the weights from (g mod period) · entries on. Columns: element (s, i) has its own."""

    @property
    def groups(self) -> int:
        return self.shape[0] * self.shape[2]

    @property
    def group_size(self) -> int:
        return self.shape[1] * self.shape[3]


def _split(shape: tuple[int, ...], channel_axis: int) -> tuple[int, int, int]:
    """(elements before the channel axis and after the batch axis, channels, elements after)."""
    return math.prod(shape[1:channel_axis]), shape[channel_axis], math.prod(shape[channel_axis + 1 :])


def _samples(samples: int, before: int, groups: int, inner: int) -> tuple[int, int, int, int]:
    """Groups of each sample; where each is one run of memory, samples and groups are one axis."""
    return (1, 1, samples * groups, inner) if before == 1 else (samples, before, groups, inner)


def trailing_view(shape: tuple[int, ...], axes: int) -> View:
    """Layer and RMS norm: one group for each row of the last `axes` axes; each place in a row has its own weight."""
    n = math.prod(shape[len(shape) - axes :])
    return View((1, 1, math.prod(shape[: len(shape) - axes]), n), True, n, 1)


def batch_view(shape: tuple[int, ...], channel_axis: int) -> View:
    """Batch norm: one group for each channel, over everything else."""
    before, channels, after = math.prod(shape[:channel_axis]), shape[channel_axis], math.prod(shape[channel_axis + 1 :])
    return View((1, before, channels, after), after != 1, 1, channels)


def instance_view(shape: tuple[int, ...], channel_axis: int) -> View:
    """Instance norm: one group for each channel of each sample."""
    before, channels, after = _split(shape, channel_axis)
    return View(_samples(shape[0], before, channels, after), after != 1, 1, channels)


def group_view(shape: tuple[int, ...], channel_axis: int, num_groups: int) -> View:
    """Group norm: one group for each `num_groups`-th of the channels of each sample, neighbours together."""
    before, channels, after = _split(shape, channel_axis)
    each = channels // num_groups
    return View(_samples(shape[0], before, num_groups, each * after), after != 1 or before == 1, each, num_groups)


def axes_view(shape: tuple[int, ...], axes: Sequence[int]) -> View | None:
    """Any axes; None where the reduced axes alternate with the others more often than a view can follow."""
    # neighbouring axes of one kind are one axis; axes of length 1 are of no kind
    merged: list[tuple[bool, int]] = []
    for axis, length in enumerate(shape):
        if length == 1:
            continue
        reduced = axis in axes
        if merged and merged[-1][0] == reduced:
            merged[-1] = (reduced, merged[-1][1] * length)
        else:
            merged.append((reduced, length))
    # as kept × reduced × kept × reduced from the right, absent ones of length 1
    lengths = [1, 1, 1, 1]
    place = 3
    for reduced, length in reversed(merged):
        if reduced != (place % 2 == 1):
            place -= 1
        if place < 0:
            return None
        lengths[place] = length
        place -= 1
    o, a, s, i = lengths
    return View((o, a, s, i), a == 1 or i >= SHORT_RUN, 1, 1)
