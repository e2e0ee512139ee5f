"""Weights of one network carried over to another with other inputs, targets or plans.

Axes: R = rank, Y = blocks of the heads, Q = quantiles, X = hidden units.
"""

import torch
from torch import Tensor

from model.config import ModelConfig
from model.errors import IncompatibleCheckpoint
from model.inputs.seasons.calendar import N_CALENDAR, YEAR_TERMS
from model.inputs.series_inputs import input_names
from model.networks.quantile_network import QuantileNetwork

#: Fields of the configuration that decide the shape of what is carried over.
_SHAPE = ("architecture", "hidden", "layers", "rank", "quantiles")


def adapted(start: QuantileNetwork, config: ModelConfig) -> QuantileNetwork:
    """A network of `config` with the weights of `start`.

    Inputs are matched by name; new ones start without effect, as do new terms of the year in the
    calendar. Further targets start like units.
    Raises IncompatibleCheckpoint if encoder or quantiles differ in shape.
    """
    for name in _SHAPE:
        own, wanted = getattr(start.config, name), getattr(config, name)
        if own != wanted:
            raise IncompatibleCheckpoint(f"{name} is {own} in the weights to start from: {wanted}")
    network = QuantileNetwork(config)
    old = start.state_dict()
    with torch.no_grad():
        for name, part in network.state_dict().items():
            if name in old and old[name].shape == part.shape:
                part.copy_(old[name])
        _copy_inputs(start.encoder.input_weights, network.encoder.input_weights, start, config, 0)
        width = start.encoder.width
        _copy_inputs(start.heads.project.weight, network.heads.project.weight, start, config, width)
        _copy_blocks(start, network)
        if config.year_terms and not start.config.year_terms:
            first = network.encoder.input_weights.shape[1] - N_CALENDAR
            network.encoder.input_weights[:, [first + term for term in YEAR_TERMS]] = 0.0
            network.heads.read.weight[:, YEAR_TERMS] = 0.0
    return network


def _copy_inputs(
    old_XI: Tensor, new_XI: Tensor, start: QuantileNetwork, config: ModelConfig, width: int
) -> None:
    """Copy the columns of equal inputs; `width` columns before and all after them are the same."""
    before, after = input_names(start.config), input_names(config)
    tail = old_XI.shape[1] - width - len(before) - start.config.static
    new_XI[:, :width] = old_XI[:, :width]
    learned = set(before) - set(start.config.inputs_off)
    for column, name in enumerate(after):
        old_X = old_XI[:, width + before.index(name)] if name in learned else 0.0
        new_XI[:, width + column] = old_X
    # a new embedding is zero, so its weights are not: one of the two must be, but only one
    if config.static == start.config.static:
        of_new = slice(width + len(after), width + len(after) + config.static)
        of_old = slice(width + len(before), width + len(before) + config.static)
        new_XI[:, of_new] = old_XI[:, of_old]
    if tail:
        new_XI[:, -tail:] = old_XI[:, -tail:]


def _copy_blocks(start: QuantileNetwork, network: QuantileNetwork) -> None:
    """Copy the blocks of units, sums and equal targets of the heads; others start like units."""
    old, new = start.heads, network.heads
    quantiles = new.n_quantiles
    before, after = start.config.targets, network.config.targets
    source = [0, 1, *(2 + before.index(name) if name in before else 0 for name in after)]
    for of_old, of_new in zip(old.write.parameters(), new.write.parameters(), strict=True):
        rest = of_old.shape[1:]
        blocks = of_old.view(old.rank + 1, old.blocks, quantiles, *rest)[:, source]
        of_new.copy_(blocks.reshape(of_new.shape))
    if old.answer is not None and new.answer is not None:
        for of_old, of_new in zip(old.answer.parameters(), new.answer.parameters(), strict=True):
            rest = of_old.shape[1:]
            blocks = of_old.view(-1, old.blocks, quantiles, *rest)[:, source]
            of_new.copy_(blocks.reshape(of_new.shape))
