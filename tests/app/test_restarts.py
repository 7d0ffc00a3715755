"""How long the supervisor waits before it starts a dead child again."""

from penstock.app.restarts import FIRST_PAUSE_S, HEALTHY_AFTER_S, LONGEST_ONCE_READY_S, LONGEST_PAUSE_S, Restarts


def test_what_is_killed_now_and_then_is_back_at_once() -> None:
    restarts = Restarts()
    assert {restarts.pause_s(ready_for_s=2 * HEALTHY_AFTER_S) for _ in range(10)} == {FIRST_PAUSE_S}


def test_what_dies_again_and_again_is_started_ever_more_rarely() -> None:
    restarts = Restarts()
    pauses = [restarts.pause_s(ready_for_s=0.0) for _ in range(10)]
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S
    assert restarts.pause_s(ready_for_s=2 * HEALTHY_AFTER_S) == FIRST_PAUSE_S


def test_what_was_ready_is_back_soon_however_often_it_dies() -> None:
    restarts = Restarts()
    pauses = [restarts.pause_s(ready_for_s=0.5) for _ in range(10)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_ONCE_READY_S
