"""A bounded number of something that requests take and give back: pictures in work, bytes held in memory."""

import math
from collections.abc import Callable

from captioning.serving.problems import Problem

MAX_RETRY_SECONDS = 60


class Places:
    """Places of one kind, for one event loop.

    Args:
        num: of all of them.
        what: they are, for the refusal.
        seconds_each: how long one is taken at present, from which the time to come again is estimated.
        max_seconds: all that are taken may take together; further ones would be given up before they are done.
    """

    def __init__(
        self, num: int, what: str, seconds_each: Callable[[], float], max_seconds: float = math.inf
    ) -> None:
        self._num, self._what, self._seconds_each, self._max_seconds = num, what, seconds_each, max_seconds
        self.num_taken = 0

    def take(self, num: int) -> None:
        """Take some.

        Raises:
            Problem: 503, too few are left.
        """
        is_late = self.num_taken > 0 and (self.num_taken + num) * self._seconds_each() > self._max_seconds
        if is_late or self.num_taken + num > self._num:
            seconds = self._retry_seconds()
            raise Problem(
                503,
                f"the service is busy: {self.num_taken:,} {self._what}, at most {self._num:,}, and this request needs "
                f"{num:,}; send it again in {seconds} s",
                title="Busy",
                headers={"Retry-After": str(seconds)},
            )
        self.num_taken += num

    def give_back(self, num: int) -> None:
        """Give some back."""
        self.num_taken -= num

    def _retry_seconds(self) -> int:
        return max(1, min(MAX_RETRY_SECONDS, math.ceil(self.num_taken * self._seconds_each())))
