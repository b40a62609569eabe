"""Tests of the structured search."""
