"""What is said of tasks and threads names the place that waits, and who waits for it."""

import asyncio
import threading

import pytest

from stream.kafka.faust_app import _end
from stream.processes.stack_report import task_stacks, thread_stacks


async def inner(gate: asyncio.Event) -> None:
    """Wait for a gate."""
    await gate.wait()


async def outer(gate: asyncio.Event) -> None:
    """Wait for who waits."""
    await inner(gate)


async def test_a_task_is_said_from_what_it_waits_for_outwards() -> None:
    """The innermost call comes first."""
    gate = asyncio.Event()
    task = asyncio.create_task(outer(gate), name="writer")
    await asyncio.sleep(0)
    said = next(line for line in task_stacks(asyncio.get_running_loop()) if "writer" in line)
    gate.set()
    await task
    assert said.startswith("writer: locks.py:")
    assert said.index(" wait") < said.index(" inner") < said.index(" outer")
    assert not any("writer" in line for line in task_stacks(asyncio.get_running_loop()))


def test_a_thread_is_said_with_its_callers_and_not_the_asker() -> None:
    """Other threads only."""
    gate, begun = threading.Event(), threading.Event()

    def waits() -> None:
        begun.set()
        gate.wait()

    thread = threading.Thread(target=waits, name="reader")
    thread.start()
    begun.wait()
    lines = thread_stacks()
    gate.set()
    thread.join()
    said = next(line for line in lines if line.startswith("reader: "))
    assert said.index("threading.py") < said.index("test_standing.py")
    assert not any(line.startswith("MainThread") for line in lines)


async def test_a_worker_is_ended_even_if_nothing_can_be_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The words come first, but the end does not depend on them."""
    ended: list[int] = []

    def unreadable(loop: asyncio.AbstractEventLoop) -> list[str]:
        raise RuntimeError

    monkeypatch.setattr("stream.kafka.faust_app.tasks_at", unreadable)
    monkeypatch.setattr("os._exit", ended.append)
    with pytest.raises(RuntimeError):
        _end(asyncio.get_running_loop())
    assert ended == [1]
