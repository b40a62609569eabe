"""Tests of `launch.reproduce`."""
