"""Stacks of all tasks and threads, logged before a process is forced to exit.

Only reads frames, so it may run in any thread, even while the event loop is blocked.
"""

import asyncio
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

#: Calls reported of each stack, the innermost first.
DEPTH = 4


def task_stacks(loop: asyncio.AbstractEventLoop) -> list[str]:
    """Return the unfinished tasks of a loop as `name: file:line function < its caller < …`."""
    tasks = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    return [f"{task.get_name()}: {_described(_awaits(task.get_coro()))}" for task in tasks]


def thread_stacks() -> list[str]:
    """Return the other threads of this process, in the form of `task_stacks`."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return [
        f"{names.get(number, number)}: {_described(_calls(frame))}"
        for number, frame in sorted(sys._current_frames().items())
        if number != threading.get_ident()
    ]


def _awaits(coroutine: Any) -> Iterator[FrameType]:
    """Yield the frames of a suspended coroutine, the outermost first: each awaits the next."""
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            yield frame
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)


def _calls(frame: FrameType | None) -> list[FrameType]:
    """Return the frames of a thread, the outermost first."""
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames[::-1]


def _described(frames: Iterator[FrameType] | list[FrameType]) -> str:
    return " < ".join(
        f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
        for frame in list(frames)[-DEPTH:][::-1]
    )
