"""Marks of tests that need packages which not everybody installs."""

from __future__ import annotations

import os

import pytest

from launch.reproduce import sb3 as peer

# In CI their absence is an error.
needs_peer = pytest.mark.skipif(not (peer.installed() or os.environ.get("CI")), reason="needs requirements-peer.txt")
