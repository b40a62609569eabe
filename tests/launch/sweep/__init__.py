"""Tests of `launch.sweep`."""
