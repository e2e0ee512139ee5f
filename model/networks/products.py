"""Matrix products of a served step, in float32 or in bfloat16.

A product in bfloat16 takes half the time of one in float32 on a CPU with instructions for it
(AVX-512 BF16, AMX) and on a GPU. Everything else of a step, states included, stays float32.
"""

import torch
from torch import Tensor

from model.workspace import Workspace


def products_into(
    out: Tensor, bias: Tensor, *factors: tuple[Tensor, Tensor], work: Workspace, dtype: torch.dtype
) -> None:
    """Write ``bias + Σ a @ b`` over the `factors` (a, b) into `out`; products are of `dtype`.

    >>> out = torch.empty(1, 1)
    >>> pair = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]])
    >>> products_into(out, torch.zeros(1), pair, work=Workspace(), dtype=torch.bfloat16)
    >>> out.item()
    11.0
    """
    exact = dtype == out.dtype
    target = out if exact else work.take("rounded", *out.shape, dtype=dtype)
    (first_a, first_b), *others = factors
    torch.addmm(bias.to(dtype), first_a.to(dtype), first_b.to(dtype), out=target)
    for a, b in others:
        target.addmm_(a.to(dtype), b.to(dtype))
    if not exact:
        out.copy_(target)


def has_bfloat16(device: torch.device) -> bool:
    """True if products in bfloat16 are faster than in float32 on this device."""
    if device.type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return True
