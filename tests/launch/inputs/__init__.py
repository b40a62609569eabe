"""Tests of what a user gives."""
