"""Trees of arrays with random keys in them: compared, kept, and used a second time on purpose."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def plain(tree: Any) -> Any:
    """The tree in NumPy, copied, so that the arrays may be donated; a key becomes its words."""
    return jax.tree.map(lambda leaf: np.array(jax.random.key_data(leaf) if _is_key(leaf) else leaf), tree)


def again(tree: Any) -> Any:
    """The tree for a second use: key-reuse checks take its keys for new ones."""
    return jax.tree.map(lambda leaf: jax.random.clone(leaf) if _is_key(leaf) else leaf, tree)


def assert_identical(first: Any, second: Any) -> None:
    """Two trees have the same structure and the same bits.

    Raises:
      AssertionError: naming the first leaf that differs.
    """
    first, second = plain(first), plain(second)
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for (path, one), (_, other) in zip(
        jax.tree_util.tree_leaves_with_path(first), jax.tree_util.tree_leaves_with_path(second), strict=True
    ):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other, err_msg=jax.tree_util.keystr(path))
