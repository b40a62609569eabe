"""Tests of the execution layer, on real nodes."""
