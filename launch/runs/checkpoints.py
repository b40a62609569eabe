"""Checkpoints of everything a run carries, in one file a group of seeds, written atomically.

The file is an ordinary `.npz` of the run's arrays by name, so that NumPy reads it, behind one line of JSON with
its checksum and what it belongs to. A write goes to a temporary file that replaces the old one when it is on disk.
"""

from __future__ import annotations

import hashlib
import io
import json
import pathlib
import zipfile
from typing import TypeVar

import chex
import jax
import jax.numpy as jnp
import numpy as np

from launch.host.errors import InputError
from launch.host.files import write_atomically

Tree = TypeVar("Tree")

MAGIC = "hl_jax checkpoint 1"


def _named_leaves(tree: chex.ArrayTree) -> dict[str, np.ndarray]:
    """Arrays of a tree by their path; a typed key as its words."""
    leaves = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        leaves[jax.tree_util.keystr(path)] = np.asarray(leaf)
    return leaves


def save(path: pathlib.Path, tree: chex.ArrayTree, notes_of_run: object, owner: str) -> None:
    """Writes a tree of arrays, and plain data beside it; `owner` names the settings that it belongs to."""
    payload = io.BytesIO()
    np.savez(payload, **_named_leaves(tree))  # type: ignore[arg-type]
    content = payload.getvalue()
    notes = json.dumps(notes_of_run).encode()
    digest = hashlib.sha256(notes + content).hexdigest()
    head = json.dumps({"format": MAGIC, "owner": owner, "sha256": digest, "notes": len(notes)})
    write_atomically(path, head.encode() + b"\n" + notes + content)


def load(path: pathlib.Path, like: Tree, owner: str) -> tuple[Tree, object]:
    """Reads a checkpoint into the structure of `like`. Returns the tree and the plain data.

    Raises:
      InputError: if the file is damaged, or isn't a checkpoint of these settings.
    """
    try:
        head_line, _, rest = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise InputError(f"checkpoint: expected a readable file, found {error.strerror} at {path}") from error
    try:
        head = json.loads(head_line)
        if head["format"] != MAGIC:
            raise ValueError(head["format"])
        notes, content = rest[: head["notes"]], rest[head["notes"] :]
        found_owner, digest = head["owner"], head["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"checkpoint: expected a file of format {MAGIC!r}, found another in {path}") from error
    if hashlib.sha256(notes + content).hexdigest() != digest:
        raise InputError(f"checkpoint: expected the content that its checksum names, found a damaged file {path}")
    if found_owner != owner:
        expected = f"one of this run's settings ({owner[:12]})"
        raise InputError(f"checkpoint: expected {expected}, found one of others ({found_owner[:12]}) in {path}")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"checkpoint: expected arrays, found {error} in {path}") from error
    return _rebuild(arrays, like, path), json.loads(notes)


def _rebuild(arrays: dict[str, np.ndarray], like: Tree, path: pathlib.Path) -> Tree:
    leaves = []
    for name, old in _named_leaves(like).items():
        new = arrays.get(name)
        if new is None or new.shape != old.shape or new.dtype != old.dtype:
            found = "nothing" if new is None else f"{new.dtype}{list(new.shape)}"
            raise InputError(f"checkpoint: expected {name} of {old.dtype}{list(old.shape)}, found {found} in {path}")
        leaves.append(new)
    kinds, structure = jax.tree.flatten(like)
    restored = [
        jax.random.wrap_key_data(jnp.asarray(leaf))
        if jnp.issubdtype(kind.dtype, jax.dtypes.prng_key)
        else jnp.asarray(leaf)
        for leaf, kind in zip(leaves, kinds, strict=True)
    ]
    tree: Tree = jax.tree.unflatten(structure, restored)
    return tree
