"""Tests of `hl_jax.fleets`."""
