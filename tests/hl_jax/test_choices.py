"""What a choice's number means, by hand and against `itertools.product`; no JAX is needed to know it."""

from __future__ import annotations

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from hl_jax import choices


def test_the_papers_ten_choices_keep_their_numbers():
    names = tuple(f"d{index}" for index in range(8))
    labels = choices.choice_labels(names)
    assert len(labels) == choices.choice_count(8) == 10
    assert labels[:8] == tuple(f"d{index}/L" for index in range(8))
    assert [labels[choice] for choice in choices.node_choices(8)] == ["d0/E", "d0/C"]
    assert (choices.edge_choice(8), choices.cloud_choice(8)) == choices.node_choices(8) == (8, 9)
    assert choices.choice_labels(names, offloading=False) == labels[:8]
    assert choices.per_choice((90.0, 70.0)) == (90.0, 70.0, 90.0, 90.0)
    assert choices.per_choice((90.0, 70.0), offloading=False) == (90.0, 70.0)
    assert choices.local_models(choices.choice_count(3)) == 3


@pytest.mark.parametrize("array", [np.array, jnp.array])
def test_tasks_at_the_nodes_are_counted(array):
    actions = array([[0, 3, 3, 4], [4, 4, 4, 1]])
    edge, cloud = choices.node_tasks(actions, 3)
    assert (edge.tolist(), cloud.tolist()) == ([2, 0], [1, 3])
    assert [int(count) for count in choices.node_tasks(actions[0], 3)] == [2, 1]


@pytest.mark.parametrize("array", [np.array, jnp.array])
@pytest.mark.parametrize(("users", "size"), [(1, 7), (3, 4), (2, 1)])
def test_an_index_is_the_place_in_itertools_product(array, users, size):
    listed = list(itertools.product(range(size), repeat=users))
    assert choices.joint_actions(users, size) == len(listed)
    actions = choices.decode(array(np.arange(len(listed), dtype=np.int32)), users, size)
    assert actions.tolist() == [list(one) for one in listed]
    assert choices.encode(actions, size).tolist() == list(range(len(listed)))
