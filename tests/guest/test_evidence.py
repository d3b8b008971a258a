"""How long a guest waits for a device that puts it off."""

from __future__ import annotations

import pytest

from tinboot.guest.evidence import Busy, Patience


def test_pauses_grow_and_end_at_the_deadline() -> None:
    now = [100.0]
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    patience = Patience(10, lambda: now[0], sleep)
    for _ in range(7):
        patience.wait("it is throttled")
    with pytest.raises(Busy, match="it is throttled, and so it was until the deadline"):
        patience.wait("it is throttled")
    assert pauses == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]
    assert now[0] <= 110
