"""Tests of placements in a tree of nodes: the search and the true optimum."""
