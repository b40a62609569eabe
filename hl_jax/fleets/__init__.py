"""A user's own fleet: a tree of measured machines, and what is asked of it."""
