"""Where a sweep's units run."""
