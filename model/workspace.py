"""Reusable buffers: fresh memory costs a page fault at its first touch.

A workspace belongs to one thread. `take` returns whatever was last written to the buffer.
"""

from math import prod

import torch
from torch import Tensor


class Workspace:
    """Named buffers of float32 or another type, each as large as the largest shape requested."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = device
        self._flat: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """The buffer `name` in this shape; overwrites what `take` returned before for that name.

        A name belongs to one `dtype`.

        >>> work = Workspace()
        >>> work.take("gates", 2, 3).fill_(1.0)[0, 0].item()
        1.0
        >>> work.take("gates", 3).tolist()
        [1.0, 1.0, 1.0]
        """
        size = prod(shape)
        flat = self._flat.get(name)
        if flat is None or flat.numel() < size:
            flat = self._flat[name] = torch.empty(size, dtype=dtype, device=self._device)
        return flat[:size].view(shape)
