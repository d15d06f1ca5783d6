"""Features: layers of the student learn to hold what layers of the teacher hold, and to look where they look.

The teacher runs beside the student and forgets: its hidden states are thousands of times larger than its likeliest
tokens, so they are not kept.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from slm_trainer.losses import answer_loss, attention_loss, hint_loss
from slm_trainer.objectives.base import Objective
from slmkit.run import RunFailed
from slmops import contract
from slmops.contract import LayerPair, Reason


def pairs_of(wanted: Sequence[LayerPair], student: Any, teacher: Any) -> list[LayerPair]:
    """The layers that are compared, counted from 1. Where none are named, each of the student's layers learns from the
    teacher's layer at the same share of the depth, the last from the last."""
    ours, theirs = int(student.num_hidden_layers), int(teacher.num_hidden_layers)
    for index, pair in enumerate(wanted):
        for role, layer, layers in (("student", pair.student, ours), ("teacher", pair.teacher, theirs)):
            if not 1 <= layer <= layers:
                raise RunFailed(Reason.LAYER_NOT_FOUND, f"objective.layers[{index}].{role} is {layer}: the {role} has "
                                f"layers 1 to {layers}")  # fmt: skip
    if wanted:
        return list(wanted)
    return [LayerPair(student=layer, teacher=math.ceil(layer * theirs / ours)) for layer in range(1, ours + 1)]


def by_features(teacher: Any, student: Any, wanted: contract.Objective, pairs: Sequence[LayerPair]) -> Objective:
    """``alpha`` (hints + attention) + (1 - ``alpha``) words; hints and attention are means over the pairs of layers.

    Where widths differ a linear layer without bias takes the student's states to the teacher's width (FitNets'
    regressor); it is trained with the student and not published.
    """
    teacher.requires_grad_(False).eval()
    if wanted.attention:
        for model in (teacher, student):
            model.set_attn_implementation("eager")  # fused kernels have no maps to show
    ours, theirs = int(student.config.hidden_size), int(teacher.config.hidden_size)
    regressors = nn.ModuleList(nn.Identity() if ours == theirs else nn.Linear(ours, theirs, bias=False) for _ in pairs)
    options = {"output_hidden_states": True} | ({"output_attentions": True} if wanted.attention else {})

    def loss(output: Any, tokens: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            shown = teacher.to(tokens.device)(input_ids=tokens, attention_mask=mask, **options)
        terms = [
            hint_loss(regressor(output.hidden_states[pair.student].float()), shown.hidden_states[pair.teacher], mask)
            for regressor, pair in zip(regressors, pairs, strict=True)
        ]
        if wanted.attention:
            terms += [
                attention_loss(output.attentions[pair.student - 1], shown.attentions[pair.teacher - 1], mask)
                for pair in pairs
            ]
        features = torch.stack(terms).sum() / len(pairs)
        return wanted.alpha * features + (1 - wanted.alpha) * answer_loss(output.logits, labels)

    return Objective(loss, options, regressors)
