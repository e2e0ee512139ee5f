"""When the trainer trains; times in minutes."""

from model.durations import DAY_MS, MINUTE_MS
from stream.jobs.training.schedule import Due, Schedule
from stream.registry.announcements import ModelRecord


def schedule(last: int | None = None) -> Schedule:
    """A training a day, an hour between two."""
    last_ms = None if last is None else last * MINUTE_MS
    return Schedule(every_ms=DAY_MS, cooldown_ms=60 * MINUTE_MS, last_ms=last_ms)


def request(minute: int, *, drift: bool = False) -> ModelRecord:
    """A request of this minute."""
    return ModelRecord("retrain", "", "now", minute * MINUTE_MS, drift=drift)


def waits(planned: Schedule, now: int) -> int:
    """Minutes from `now` until a training is due."""
    return next(m for m in range(10_000) if planned.due((now + m) * MINUTE_MS) is not None)


def test_a_failed_training_waits_twice_as_long_each_time_up_to_a_day() -> None:
    planned, now, delays = schedule(), 0, []
    for _ in range(10):
        planned.ended("failed", now * MINUTE_MS)
        delays.append(waits(planned, now))
        now += delays[-1]

    assert delays == [10, 20, 40, 80, 160, 320, 640, 1_280, 1_440, 1_440]


def test_a_request_that_could_not_be_met_is_kept_but_does_not_hurry() -> None:
    planned = schedule(last=0)
    planned.ask(request(100, drift=True))
    assert planned.due(100 * MINUTE_MS) == Due("requested: now", drifted=True)
    planned.ended("skipped", 101 * MINUTE_MS)

    assert planned.due(102 * MINUTE_MS) is None
    assert planned.due(111 * MINUTE_MS) == Due("requested: now", drifted=True)
    planned.ended("refused", 112 * MINUTE_MS)
    assert planned.due(300 * MINUTE_MS) is None


def test_a_new_request_ends_the_delay_and_one_that_is_read_again_does_not() -> None:
    """After a reconnect the trainer reads the topic from its beginning."""
    planned = schedule()
    planned.ask(request(1))
    for _ in range(5):
        planned.ended("failed", 2 * MINUTE_MS)
    planned.ask(request(1))
    assert planned.due(3 * MINUTE_MS) is None

    planned.ask(request(3))
    assert planned.due(3 * MINUTE_MS) is not None


def test_a_verdict_ends_the_delay() -> None:
    planned = schedule()
    for _ in range(5):
        planned.ended("failed", 0)
    planned.ended("promoted", 0)
    planned.ended("failed", 0)

    planned.ask(request(1))
    assert waits(planned, 0) == 60, "only the cooldown"
