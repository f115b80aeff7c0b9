"""Samples pass through here and come out as summaries that can be merged: of panes into windows, of minutes into hours.

Merging is associative and commutative, and the empty summary changes nothing. `n`, `min`, `max`, `first`, `last` and the
buckets of the quantiles are exact whatever the order, and so is `sum` where the samples are whole numbers (to 2^53).
Otherwise swapping two summaries changes no bit, and regrouping changes the last ones: each merge adds at most 2^-51 of the
largest magnitude to the error of `mean` and `std`, and 2^-53 of the sum of magnitudes to that of `sum`.

Quantiles are those of DDSketch (Masson et al. 2019) with its bitwise mapping: a bucket is a 64th of an octave, so that no
logarithm decides where a sample goes and every machine decides alike. Where samples span more than 16 octaves, the smallest count
as zero; what is kept follows from the largest magnitude alone, hence the exact merge. `kernels.quantiles` folds its
buckets when their number is exceeded instead, in fixed memory: an error that depends on the samples, and a unit to choose.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

from edgefn.errors import PayloadError

if TYPE_CHECKING:
    import numpy.typing as npt

VERSION = 1
PER_OCTAVE = 64  # buckets; the error of a quantile is at most half of one
SPAN = 16 * PER_OCTAVE  # buckets that are kept below the largest magnitude, and as many on the other side of zero
OFFSET = 1100  # makes the binary exponent of every float positive, the subnormal ones included (-1073)

RELATIVE_ERROR = 1 / (2 * PER_OCTAVE)
ZERO_ERROR = (
    1 / 64_000
)  # of the largest magnitude: below it a sample counts as zero (2^-16 of the end of the top bucket)

_EARLIEST, _LATEST = -(1 << 63), (1 << 63) - 1


def bucket(x: float) -> int:
    """The bucket of a finite number: 0 for 0, below 0 for negative ones; larger numbers are never in a lower bucket."""
    if x == 0.0:
        return 0
    fraction, exponent = math.frexp(abs(x))
    number = PER_OCTAVE * (exponent + OFFSET - 1) + int(fraction * (2 * PER_OCTAVE))
    return number if x > 0 else -number


def middle(number: int) -> float:
    """The number in the middle of a bucket: within RELATIVE_ERROR of all that are in it."""
    if number == 0:
        return 0.0
    octave, part = divmod(abs(number), PER_OCTAVE)
    value = math.ldexp(0.5 + (part + 0.5) / (2 * PER_OCTAVE), octave - OFFSET)
    return value if number > 0 else -value


@dataclass(frozen=True, slots=True)
class Summary:
    """What is known of n samples of one quantity. `Summary()` is the empty one; the others are made by `of` and by merging.

    `first` and `last` go by time, then by value, so that equal times leave no choice to the order of merging.
    """

    n: int = 0
    sum: float = 0.0
    mean: float = 0.0
    m2: float = 0.0  # sum of the squared distances from the mean
    min: float = math.inf
    max: float = -math.inf
    first: tuple[int, float] = (_LATEST, math.inf)  # time in ns, value
    last: tuple[int, float] = (_EARLIEST, -math.inf)
    buckets: Mapping[int, int] = field(default_factory=dict, hash=False)  # number of the bucket: samples in it

    @classmethod
    def of(cls, values: npt.ArrayLike, ts: npt.ArrayLike, *, buckets: bool = True) -> Summary:
        """Summarises samples; ts: ns since the epoch, one for each value or one for all. Without `buckets` no quantile is known.

        NaN, infinities and what is beyond 1e150 (`kernels.sample`) are no samples: `n` does not count them.
        """
        import numpy as np

        from edgefn.kernels.sample import LARGEST

        x, t = np.broadcast_arrays(np.asarray(values, np.float64).ravel(), np.asarray(ts, np.int64).ravel())
        good = np.abs(x) <= LARGEST
        x, t = x[good] + 0.0, t[good]  # -0.0 becomes 0.0: which of the two is the smaller would depend on the order
        if not x.size:
            return EMPTY
        distance = x - x[0]  # of a constant, all zero
        mean = float(x[0] + distance.mean())
        distance = x - mean
        m2 = float(np.dot(distance, distance) - distance.sum() ** 2 / x.size)
        begin, end = t.min(), t.max()
        low, high = float(x.min()), float(x.max())
        kept: dict[int, int] = {}
        if buckets:
            fraction, exponent = np.frexp(np.abs(x))
            octave = PER_OCTAVE * (exponent.astype(np.int64) + OFFSET - 1)
            numbers = np.sign(x).astype(np.int64) * (octave + (fraction * (2 * PER_OCTAVE)).astype(np.int64))
            numbers, counts = np.unique(numbers, return_counts=True)
            kept = _kept(zip(numbers.tolist(), counts.tolist(), strict=True), low, high)
        return cls(
            n=int(x.size),
            sum=float(x.sum()),
            mean=mean,
            m2=max(m2, 0.0),
            min=low,
            max=high,
            first=(int(begin), float(x[t == begin].min())),
            last=(int(end), float(x[t == end].max())),
            buckets=kept,
        )

    def __or__(self, other: Summary) -> Summary:
        """The summary of both sets of samples (Chan, Golub & LeVeque 1979 for mean and m2)."""
        if not self.n or not other.n:
            return self if self.n else other
        # Measured from the mean of the larger set, so that a constant stays what it is and a | b is b | a to the last bit.
        small, large = sorted((self, other), key=lambda one: (one.n, one.mean))
        n = small.n + large.n
        distance = small.mean - large.mean
        low, high = min(self.min, other.min), max(self.max, other.max)
        return Summary(
            n=n,
            sum=self.sum + other.sum,
            mean=large.mean + distance * (small.n / n),
            m2=self.m2 + other.m2 + distance * distance * (small.n * large.n / n),
            min=low,
            max=high,
            first=min(self.first, other.first),
            last=max(self.last, other.last),
            buckets=_kept(chain(self.buckets.items(), other.buckets.items()), low, high),
        )

    @property
    def variance(self) -> float:
        """Of the population: divided by n. NaN where there are no samples."""
        return self.m2 / self.n if self.n else math.nan

    def stat(self, name: str) -> float:
        """A statistic by the name it has in `summarize`: n, mean, min, max, sum, std, first, last, median, p1 to p99.

        Without samples n and sum are 0 and the others NaN. Raises ValueError for another name.
        """
        if name == "n":
            return float(self.n)
        if name == "sum":
            return self.sum
        if name == "median":
            return self.quantile(0.5)
        if name[:1] == "p" and name[1:].isdecimal() and 1 <= int(name[1:]) <= 99:
            return self.quantile(int(name[1:]) / 100)
        if name not in _STATS:
            raise ValueError(f"unknown statistic {name!r}; known are n, sum, median, {', '.join(_STATS)} and p1 to p99")
        return _STATS[name](self) if self.n else math.nan

    def quantile(self, q: float) -> float:
        """The q-quantile, interpolated between its two neighbours as numpy does by default; NaN without samples.

        Within RELATIVE_ERROR of the larger of the two magnitudes, plus ZERO_ERROR of the largest of all. q: 0 to 1, else
        ValueError.
        """
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"a quantile lies between 0 and 1, not at {q}")
        if not self.n:
            return math.nan
        position = (self.n - 1) * q
        rank = int(position)
        below = self._ranked(rank)
        return below + (position - rank) * (self._ranked(min(rank + 1, self.n - 1)) - below)

    def _ranked(self, rank: int) -> float:
        if rank == self.n - 1:
            return self.max
        if rank == 0:
            return self.min
        seen = 0
        for number in sorted(self.buckets):
            seen += self.buckets[number]
            if seen > rank:
                return min(max(middle(number), self.min), self.max)
        raise AssertionError("the buckets hold as many samples as are counted")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON or msgpack; each bucket as the distance from the one before, and its count."""
        if not self.n:
            return {"v": VERSION, "n": 0}
        numbers = sorted(self.buckets)
        steps = (number - before for before, number in zip([0, *numbers], numbers, strict=False))
        return {
            "v": VERSION,
            "n": self.n,
            "sum": self.sum,
            "mean": self.mean,
            "m2": self.m2,
            "min": self.min,
            "max": self.max,
            "first": list(self.first),
            "last": list(self.last),
            "buckets": [*chain.from_iterable(zip(steps, (self.buckets[number] for number in numbers), strict=True))],
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Summary:
        """What `to_dict` gave. Raises PayloadError("bad_summary") for what no samples can have given."""
        if plain.get("v") != VERSION:
            raise PayloadError(
                "bad_summary",
                f"its version is {plain.get('v')!r} and this edgefn reads {VERSION}; update whichever is older",
            )
        try:
            if plain["n"] == 0:
                return EMPTY
            steps, counts = plain["buckets"][::2], plain["buckets"][1::2]
            made = cls(
                n=int(plain["n"]),
                **{name: float(plain[name]) for name in ("sum", "mean", "m2", "min", "max")},
                first=(int(plain["first"][0]), float(plain["first"][1])),
                last=(int(plain["last"][0]), float(plain["last"][1])),
                buckets=dict(zip(accumulate(map(int, steps)), map(int, counts), strict=True)),
            )
        except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            raise PayloadError("bad_summary", f"{type(error).__name__}: {error}") from error
        if problem := made._problem():
            raise PayloadError("bad_summary", problem)
        return made

    def _problem(self) -> str:
        numbers = (self.sum, self.mean, self.m2, self.min, self.max, self.first[1], self.last[1])
        if not all(map(math.isfinite, numbers)):
            return "one of its statistics is not a finite number"
        if self.n < 0 or min(self.buckets.values(), default=0) <= 0 or sum(self.buckets.values()) != self.n:
            return f"it says {self.n} samples and its buckets hold {sum(self.buckets.values())}"
        if self.m2 < 0 or self.first[0] > self.last[0]:
            return "its variance is negative, or its last sample before its first"
        if not (self.min <= self.first[1] <= self.max and self.min <= self.last[1] <= self.max):
            return "its first or last sample lies outside of min and max"
        low, high = bucket(self.min), bucket(self.max)
        inside = all(low <= number <= high for number in self.buckets if number)
        if not inside or self.buckets != _kept(self.buckets.items(), self.min, self.max):
            return "its buckets lie outside of min and max"
        return ""


EMPTY = Summary()

_STATS: dict[str, Callable[[Summary], float]] = {
    "mean": lambda one: one.mean,
    "min": lambda one: one.min,
    "max": lambda one: one.max,
    "std": lambda one: math.sqrt(one.variance),
    "first": lambda one: one.first[1],
    "last": lambda one: one.last[1],
}


def merge(summaries: Iterable[Summary]) -> Summary:
    """The summary of all their samples; EMPTY where there are none."""
    return functools.reduce(Summary.__or__, summaries, EMPTY)


def _kept(counts: Iterable[tuple[int, int]], low: float, high: float) -> dict[int, int]:
    """Adds up the counts of buckets. Those SPAN or more below that of the largest magnitude count as zero."""
    floor = max(-bucket(low), bucket(high)) - SPAN
    kept: dict[int, int] = {}
    for number, count in counts:
        if abs(number) <= floor:
            number = 0
        kept[number] = kept.get(number, 0) + count
    return kept
