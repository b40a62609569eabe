"""What a choice's number means: C = l + 2 of them, the l local models, then the edge, then the cloud (both run d0).

A joint action is a choice for each of N devices, as [N] numbers or as one index of all A = C^N. The functions take
NumPy's and JAX's arrays alike and return what they were given; JAX itself isn't needed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import chex

LOCAL, EDGE, CLOUD = "L", "E", "C"  # where, as Table V writes it
MOST_JOINT_ACTIONS = 10**7  # that are gone through one by one; a table of them is 40 MB

Item = TypeVar("Item")


def choice_count(models: int) -> int:
    """C, of a device that may run `models` models itself, or offload."""
    return models + 2


def local_models(choices: int) -> int:
    """l, where C choices include offloading."""
    return choices - 2


def edge_choice(models: int) -> int:
    """The choice that sends the input to the edge."""
    return models


def cloud_choice(models: int) -> int:
    """The choice that sends the input to the cloud."""
    return models + 1


def node_choices(models: int) -> tuple[int, int]:
    """Both of these, in the order in which arrays hold the nodes."""
    return edge_choice(models), cloud_choice(models)


def node_tasks(action: chex.Array, models: int) -> tuple[chex.Array, chex.Array]:
    """Number of tasks that a joint action ([..., N]) puts at the edge and at the cloud. Each [...]."""
    edge, cloud = ((action == choice).sum(axis=-1) for choice in node_choices(models))
    return edge, cloud


def per_choice(per_model: Sequence[Item], offloading: bool = True) -> tuple[Item, ...]:
    """What each model has ([l]) as what each choice has ([C]): edge and cloud run the first one."""
    return (*per_model, *([per_model[0]] * 2 if offloading else []))


def choice_labels(models: Sequence[str], offloading: bool = True) -> tuple[str, ...]:
    """Names of the choices as Table V writes them: `d4/L`, …, `d0/E`, `d0/C`."""
    places = [LOCAL] * len(models) + ([EDGE, CLOUD] if offloading else [])
    return tuple(f"{model}/{place}" for model, place in zip(per_choice(models, offloading), places, strict=True))


def joint_actions(users: int, choices: int) -> int:
    """A = C^N."""
    return choices**users


def _powers(users: int, choices: int, dimensions: int) -> np.ndarray:
    """What each device's choice counts in an index, the first device the most. [1, ..., N]."""
    return np.array([choices**place for place in range(users - 1, -1, -1)], np.int32).reshape((1,) * dimensions + (-1,))


def decode(index: chex.Array, users: int, choices: int) -> chex.Array:
    """Joint action [..., N] of an index, the first device the most significant (`itertools.product`'s order)."""
    return (index[..., None] // _powers(users, choices, index.ndim)) % choices


def encode(action: chex.Array, choices: int) -> chex.Array:
    """Index of a joint action [..., N]."""
    return (action * _powers(action.shape[-1], choices, action.ndim - 1)).sum(axis=-1, dtype=np.int32)
