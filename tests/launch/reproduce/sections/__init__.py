"""Tests of `launch.reproduce.sections`."""
