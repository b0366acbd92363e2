"""How many tokens prompts will take, learned from those that ran, and what fits into one forward pass."""

from collections.abc import Iterator, Sequence

from workers.passes import Row

_Size = tuple[int, int] | None


def tokens_of(text: str) -> int:
    """Return about how many tokens a text takes."""
    return len(text) // 3


class Lengths:
    """What prefixes take in tokens, by the size of their picture.

    Text is counted as a token for three characters; all else that a prefix holds (the picture and
    what stands in every prompt) is learned from the prefixes that ran.
    """

    def __init__(self) -> None:
        self._beside: dict[_Size, int] = {}
        self._most = 0
        self._largest = -1

    def known(self, row: Row) -> bool:
        """Return whether one with a picture as large as this one's ran; else nothing bounds what it takes."""
        return _area(row) <= self._largest

    def of(self, row: Row) -> int:
        """Return a row's length; a picture of a new size takes as many tokens as the longest one."""
        size = None if row.image is None else row.image.size
        return self._beside.get(size, self._most) + tokens_of(row.shared.content)

    def order(self, row: Row) -> tuple[int, int]:
        """Return what rows are sorted by: the longest first, of unknown ones the largest picture."""
        return -self.of(row), -_area(row)

    def learn(self, row: Row, tokens: int, *, ask: str = "") -> None:
        """Note how many tokens a row took, with a question behind it where one ran with it."""
        beside = max(0, tokens - tokens_of(row.shared.content) - tokens_of(ask))
        self._beside[None if row.image is None else row.image.size] = beside
        self._most = max(self._most, beside)
        self._largest = max(self._largest, _area(row))


def padded(lengths: Sequence[int], budget: int) -> Iterator[slice]:
    """Yield portions of rows, each at least one, that stay within the budget at their longest row's length."""
    first, longest = 0, 0
    for number, length in enumerate(lengths):
        longest = max(longest, length)
        if number > first and (number + 1 - first) * longest > budget:
            yield slice(first, number)
            first, longest = number, length
    yield slice(first, len(lengths))


def packed(lengths: Sequence[int], budget: int) -> Iterator[slice]:
    """Yield portions of what stands in one row, each at least one, that stay within the budget together."""
    first, held = 0, 0
    for number, length in enumerate(lengths):
        if number > first and held + length > budget:
            yield slice(first, number)
            first, held = number, 0
        held += length
    yield slice(first, len(lengths))


def _area(row: Row) -> int:
    return 0 if row.image is None else row.image.size[0] * row.image.size[1]
