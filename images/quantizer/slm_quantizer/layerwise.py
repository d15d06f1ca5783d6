"""A model watched on records, one layer after the other: memory for the hidden states of all records, and for one layer."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch

from slm_trainer.store import TokenStore

States = list[tuple[torch.Tensor, dict[str, Any]]]
"""What a layer is given, for each record: hidden states, and its other arguments."""


class _Caught(Exception):  # noqa: N818  (ends a forward pass, it is not an error)
    pass


def first_inputs(model: Any, store: TokenStore) -> States:
    """What the first layer of the decoder is given."""
    caught: States = []

    def catch(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        states = named.pop("hidden_states") if "hidden_states" in named else arguments[0]
        caught.append((states, named))
        raise _Caught

    handle = model.get_decoder().layers[0].register_forward_pre_hook(catch, with_kwargs=True)
    for record in store:
        with suppress(_Caught):
            model(input_ids=torch.tensor([record.tokens]), use_cache=False)
    handle.remove()
    return caught


def through(layer: Any, states: States, seen: Mapping[Any, Callable[[torch.Tensor], None]] | None = None) -> States:
    """What the layer makes of its inputs, which is what the next one is given. ``seen``: who looks at the inputs of a part
    of the layer, as rows of (tokens, channels)."""

    def watch(look: Callable[[torch.Tensor], None]) -> Any:
        return lambda _, arguments: look(arguments[0].reshape(-1, arguments[0].shape[-1]))

    handles = [part.register_forward_pre_hook(watch(look)) for part, look in (seen or {}).items()]
    try:
        made = [(layer(hidden, **named), named) for hidden, named in states]
    finally:
        for handle in handles:
            handle.remove()
    return [(output[0] if isinstance(output, tuple) else output, named) for output, named in made]
