"""Times from measurements: the paper's Table V (`calibration`), or a fleet of one's own (`twin`)."""
