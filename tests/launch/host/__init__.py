"""Tests of files and errors."""
