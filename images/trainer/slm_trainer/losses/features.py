"""The teacher's inside: what its layers hold, and where they look."""

import torch
from torch import Tensor


def hint_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Half the squared distance between hidden states, after Romero et al. (2015), "FitNets: Hints for Thin Deep Nets",
    arXiv 1412.6550, equation 3. FitNets' regressor is what made ``student`` as wide as ``teacher``, where it was not.

    ``student``, ``teacher``: (batch, length, width); ``mask``: (batch, length), 0 at padding. Returns the mean over real
    tokens, divided by the width, so that one weight suits narrow and wide teachers.
    """
    real = mask.bool()
    return 0.5 * (teacher.float()[real] - student.float()[real]).square().mean()


def attention_map(attention: Tensor, mask: Tensor) -> Tensor:
    """Where a layer looks, whatever the number of its heads: sum of the heads' squared weights, flattened, of length 1.

    ``attention``: (batch, heads, queries, keys), ``mask``: (batch, length). Rows and columns of padding are zero.
    Returns (batch, queries x keys).
    """
    real = mask.to(attention.device).float()
    seen = attention.float().square().sum(dim=1) * real[:, :, None] * real[:, None, :]
    flat = seen.flatten(1)
    return flat / flat.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)


def attention_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared distance between attention maps, after Zagoruyko and Komodakis (2017), "Paying More Attention to
    Attention", arXiv 1612.03928, section 3.1.

    The activation-based variant with the map F² summed (p = 2), the heads of a transformer's attention taking the place
    of a convolution's channels; squared distance as in the authors' code. Shapes as in ``attention_map``; the heads may
    differ. Returns the mean over records; between 0 and 2.
    """
    return (attention_map(student, mask) - attention_map(teacher, mask)).square().sum(-1).mean()
