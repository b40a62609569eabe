"""Speed, against something public in the same run."""
