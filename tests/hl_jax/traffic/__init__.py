"""Tests of `hl_jax.traffic`."""
