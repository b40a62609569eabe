"""Tests of real nodes as an environment."""
