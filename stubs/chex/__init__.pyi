# chex ships no types. What mypy must know of it: chex.dataclass makes a dataclass, and arrays are JAX arrays.
from dataclasses import dataclass as dataclass
from typing import Any

import jax

Array = jax.Array
PRNGKey = jax.Array
Numeric = jax.Array | float | int
ArrayTree = Any

def __getattr__(name: str) -> Any: ...
