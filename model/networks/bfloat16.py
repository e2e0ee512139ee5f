"""Recurrent networks in bfloat16 where autocast would choose another precision.

Under autocast cuDNN's recurrent kernels compute in **float16**, whatever precision was requested
(PyTorch, `ATen/cudnn/AutocastRNN.cpp`); its largest number is 65,504, and small gradients vanish
unless the loss is scaled. Operands that are bfloat16 already are taken as they are.

Axes: B = series in the batch, T = buckets, X = inputs, D = hidden width, L = layers.
"""

import torch
from torch import Tensor, nn


def autocast_is_float16(device: torch.device) -> bool:
    """True if autocast is on, and a recurrent kernel of this device would compute in float16.

    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     autocast_is_float16(torch.device("cpu"))
    False
    """
    return device.type == "cuda" and torch.is_autocast_enabled("cuda")


def encode_in_bfloat16(
    rnn: nn.LSTM | nn.GRU, inputs_BTX: Tensor, state: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Encode a sequence with inputs, state [L, B, D] and weights rounded to bfloat16.

    Returns the encodings [B, T, D] and the new state, both bfloat16; gradients reach the weights
    in the weights' own precision.
    """
    with torch.autocast(inputs_BTX.device.type, enabled=False):
        inputs, *before = (part.bfloat16() for part in (inputs_BTX, *state))
        weights = [weight.bfloat16() for weight in rnn.parameters()]
        options = (weights, True, rnn.num_layers, 0.0, rnn.training, False, True)
        if isinstance(rnn, nn.LSTM):
            encoded_BTD, *after = torch.lstm(inputs, (before[0], before[1]), *options)
        else:
            encoded_BTD, *after = torch.gru(inputs, before[0], *options)
    return encoded_BTD, tuple(after)
