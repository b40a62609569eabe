"""Marks of tests that need packages which not everybody installs."""

from __future__ import annotations

import os

import pytest

from launch.inputs import public

# In CI their absence is an error.
needs_peer = pytest.mark.skipif(not (public.installed() or os.environ.get("CI")), reason="needs requirements-peer.txt")
