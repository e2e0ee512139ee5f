"""Safetensors with a JSON header under the key `surgecast`: tensors and plain values, one file.

One file, because two could be torn apart by a crash between them. Nothing is ever unpickled.
"""

import json
from typing import Any

from safetensors.torch import load
from torch import Tensor


def load_tensors(payload: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a file that `safetensors.torch.save` made with such a header.

    Raises SafetensorError, or ValueError, KeyError or TypeError where the header is none of ours.

    >>> from safetensors.torch import save
    >>> load_tensors(save({}, {"surgecast": json.dumps({"update": 3})}))[0]
    {'update': 3}
    """
    tensors = load(payload)
    length = int.from_bytes(payload[:8], "little")  # the format's own header: its length, its JSON
    own = json.loads(payload[8 : 8 + length])
    header: dict[str, Any] = json.loads(own["__metadata__"]["surgecast"])
    return header, tensors
