"""States of a network as bytes and back, bit for bit: so that a restart need not read history.

Only what is short is worth keeping; a transformer's rolling cache is as long as the history it was
made from, and a baseline is warmed up in no time.
"""

from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from model.errors import CorruptCheckpoint
from model.incremental import Forecaster, NetworkForecaster, NetworkStates, States

#: States of a series that are longer than this are not kept.
MAX_BYTES: Final = 4_096


def dump_states(states: States) -> bytes | None:
    """Safetensors of all series' states; None for states that are not worth keeping."""
    if not isinstance(states, NetworkStates) or states.bytes_per_series > MAX_BYTES:
        return None
    tensors = {f"state.{n}": part for n, part in enumerate(states.state)}
    tensors["stats"] = states.stats_SK
    last_ms = -1 if states.last_ms is None else states.last_ms
    kept = {name: part[: states.size].cpu().contiguous() for name, part in tensors.items()}
    return bytes(save({**kept, "last_ms": torch.tensor(last_ms)}))


def load_states(forecaster: Forecaster, payload: bytes) -> States | None:
    """States that `forecaster` can step on; None where it keeps none.

    Raises CorruptCheckpoint for bytes that are no states of its network.
    """
    if not isinstance(forecaster, NetworkForecaster):
        return None
    try:
        kept = load(payload)
        size = len(kept["stats"])
        states = forecaster.new_states(size)
        with torch.inference_mode():
            states.grow(size)
            states.stats_SK[:size].copy_(kept["stats"])
            for n, part in enumerate(states.state):
                part[:size].copy_(kept[f"state.{n}"])
        last_ms = int(kept["last_ms"])
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise CorruptCheckpoint(f"no states of this network: {error}") from None
    states.last_ms = None if last_ms < 0 else last_ms
    return states
