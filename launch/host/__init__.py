"""What commands need of the machine: errors, files, progress, provenance. Knows nothing of the project."""
