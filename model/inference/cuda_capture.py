"""CUDA graphs and transfers: one capture at a time, pinned memory, no device-wide synchronisation.

While any stream of a process is being captured, a synchronisation of the whole device is an error
that spoils the capture (CUDA C++ Programming Guide, "Prohibited and Unhandled Operations").
`torch.cuda.graph` itself synchronises the device before it begins, so captures take turns;
everything else waits for its own stream.
"""

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Steps before a capture, in which libraries initialise.
_WARM_STEPS: Final = 3
#: Held during a capture, by all models of the process.
CAPTURING: Final = Lock()


class CaptureFailed(Exception):
    """A step cannot be captured; its carried tensors are unchanged."""


class Capture(Protocol):
    """Turns a step into one that can be replayed. Raises CaptureFailed."""

    def __call__(self, step: Callable[[], None], carried: Sequence[Tensor]) -> Callable[[], None]:
        """Return a replay of `step`, which reads and writes fixed buffers.

        `carried` are the tensors it changes that must be unchanged afterwards.
        """
        ...


def capture_graph(step: Callable[[], None], carried: Sequence[Tensor]) -> Callable[[], None]:
    """The step as a CUDA graph; the warm-up steps leave `carried` unchanged.

    Raises CaptureFailed.
    """
    device = carried[0].device
    before = [part.clone() for part in carried]
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(_WARM_STEPS):
            step()
        for part, old in zip(carried, before, strict=True):
            part.copy_(old)
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with CAPTURING, torch.cuda.graph(graph, capture_error_mode="thread_local"):
            step()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise CaptureFailed(str(error)) from error
    return graph.replay


def to_device(values: NDArray[np.float32], target: Tensor) -> None:
    """Copy values [S, …] into the first rows of `target`, through pinned memory on a GPU.

    torch keeps pinned blocks and reuses one when its copy is done, so that the next values can be
    written while these are copied.
    """
    source = torch.from_numpy(np.ascontiguousarray(values, np.float32))
    pinned = target.device.type == "cuda"
    if pinned:
        source = source.pin_memory()
    target[: len(source)].copy_(source, non_blocking=pinned)


def to_host(blocks: Sequence[Tensor]) -> tuple[NDArray[np.float32], ...]:
    """Copies of blocks in host memory; waits for the current stream alone.

    >>> to_host([torch.ones(2)])[0].tolist()
    [1.0, 1.0]
    """
    device = blocks[0].device
    pinned = device.type == "cuda"
    copies = [torch.empty(block.shape, dtype=block.dtype, pin_memory=pinned) for block in blocks]
    for copy, block in zip(copies, blocks, strict=True):
        copy.copy_(block, non_blocking=pinned)
    if pinned:
        torch.cuda.current_stream(device).synchronize()
    return tuple(copy.numpy() for copy in copies)
