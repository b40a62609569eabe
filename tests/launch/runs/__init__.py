"""Tests of runs and what they leave."""
