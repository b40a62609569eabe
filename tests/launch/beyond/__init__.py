"""Tests of `launch.beyond`."""
