"""Signals that stop a process, held while a step must not be torn apart."""

import signal

import pytest

from stream.processes.signals import held_signals, stop_signals


def test_a_signal_within_a_held_step_takes_effect_at_its_end() -> None:
    """The step completes; then the stop is raised as usual."""
    done: list[str] = []

    def interrupted() -> None:
        with held_signals():
            signal.raise_signal(signal.SIGTERM)
            done.append("step")
        done.append("after")

    with stop_signals(), pytest.raises(KeyboardInterrupt):
        interrupted()

    assert done == ["step"]


def test_without_a_signal_nothing_changes() -> None:
    """The handlers before are the handlers after."""
    with stop_signals():
        before = signal.getsignal(signal.SIGINT)
        with held_signals():
            assert signal.getsignal(signal.SIGINT) != before
        assert signal.getsignal(signal.SIGINT) == before
