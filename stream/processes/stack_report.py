"""Where a process stands: what its tasks and threads wait for, said when it is ended by force.

Reads frames only, so it may be called from any thread, also beside an event loop that hangs.
"""

import asyncio
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

#: Calls said of each, the innermost first: enough to see who waits and for whom.
DEPTH = 4


def task_stacks(loop: asyncio.AbstractEventLoop) -> list[str]:
    """Unfinished tasks of a loop, each as `name: file:line function < its caller < …`."""
    tasks = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    return [f"{task.get_name()}: {_described(_awaits(task.get_coro()))}" for task in tasks]


def thread_stacks() -> list[str]:
    """The other threads of this process, in the same form."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return [
        f"{names.get(number, number)}: {_described(_calls(frame))}"
        for number, frame in sorted(sys._current_frames().items())
        if number != threading.get_ident()
    ]


def _awaits(coroutine: Any) -> Iterator[FrameType]:
    """Frames of a suspended coroutine, the outermost first: each awaits the next."""
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            yield frame
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)


def _calls(frame: FrameType | None) -> list[FrameType]:
    """Frames of a thread, the outermost first."""
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
