"""One training as a unit of work, and the folder that it leaves."""
