"""Tests of the replay buffers."""
