"""Safetensors with a JSON header under the key `surgecast`: tensors and plain values, one file.

A crash could separate two files. Nothing is ever unpickled.
"""

import json
from typing import Any

from safetensors.torch import load
from torch import Tensor


def load_tensors(payload: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return header and tensors of a file written by `safetensors.torch.save` with such a header.

    Raises SafetensorError for a damaged file; ValueError, KeyError or TypeError for another header.

    >>> from safetensors.torch import save
    >>> load_tensors(save({}, {"surgecast": json.dumps({"update": 3})}))[0]
    {'update': 3}
    """
    tensors = load(payload)
    length = int.from_bytes(payload[:8], "little")  # the format's own header: its length, its JSON
    own = json.loads(payload[8 : 8 + length])
    header: dict[str, Any] = json.loads(own["__metadata__"]["surgecast"])
    return header, tensors
