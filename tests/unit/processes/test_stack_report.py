"""The stack report of tasks and threads names each place that waits, and its callers."""

import asyncio
import threading
from pathlib import Path

from stream.processes.stack_report import task_stacks, thread_stacks


async def inner(gate: asyncio.Event) -> None:
    """Wait for a gate."""
    await gate.wait()


async def outer(gate: asyncio.Event) -> None:
    """Wait for `inner`."""
    await inner(gate)


async def test_a_task_is_described_from_the_innermost_call_outwards() -> None:
    gate = asyncio.Event()
    task = asyncio.create_task(outer(gate), name="writer")
    await asyncio.sleep(0)
    stack = next(line for line in task_stacks(asyncio.get_running_loop()) if "writer" in line)
    gate.set()
    await task
    assert stack.startswith("writer: locks.py:")
    assert stack.index(" wait") < stack.index(" inner") < stack.index(" outer")
    assert not any("writer" in line for line in task_stacks(asyncio.get_running_loop()))


def test_a_thread_is_described_with_its_callers_and_the_calling_thread_is_left_out() -> None:
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
    stack = next(line for line in lines if line.startswith("reader: "))
    assert stack.index("threading.py") < stack.index(Path(__file__).name)
    assert not any(line.startswith("MainThread") for line in lines)
