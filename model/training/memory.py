"""Training again with fewer lanes when the memory of device or machine is exhausted."""

import gc
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar

import torch

from model.config import TrainConfig
from model.errors import OutOfMemory
from model.training.run_file import RunFile

log = logging.getLogger(__name__)

Result = TypeVar("Result")

#: Trainings with half the lanes of the one before, after the first one.
RETRIES: Final = 3
#: Texts of errors of allocators and of libraries that have no class of their own.
_TEXTS: Final = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """True for exhausted memory, of a GPU or of the machine.

    >>> is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    True
    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    True
    >>> is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    False
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _TEXTS)


def with_fewer_lanes(
    attempt: Callable[[TrainConfig, RunFile | None], Result],
    config: TrainConfig,
    run_file: RunFile | None = None,
    *,
    retries: int = RETRIES,
) -> Result:
    """The result of `attempt`, tried again with half the lanes while memory is exhausted.

    Each retry is logged, and has a state file of its own: a state fits one number of lanes. Raises
    OutOfMemory after `retries`, or when a group is down to one lane.
    """
    tried = [config.lanes]
    while True:
        try:
            return attempt(config, run_file)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        lanes = config.lanes // 2
        if len(tried) > retries or lanes < config.groups:
            raise OutOfMemory(
                f"the training does not fit into the memory with {_listed(tried)} lanes: {reason}; "
                "give it more memory or fewer series, or a smaller network"
            )
        log.warning("out of memory with %s lanes (%s), trying %s", config.lanes, reason, lanes)
        tried.append(lanes)
        config = replace(config, lanes=lanes)
        if run_file is not None:
            run_file.path.unlink(missing_ok=True)
            run_file = run_file.with_lanes(lanes)
        _free(config.device)


def _free(device: str) -> None:
    """Return the memory of a failed attempt; the frames of its error are a cycle."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def _listed(numbers: list[int]) -> str:
    """Numbers as text.

    >>> _listed([64]), _listed([64, 32, 16])
    ('64', '64, 32 or 16')
    """
    *most, last = map(str, numbers)
    return f"{', '.join(most)} or {last}" if most else last
