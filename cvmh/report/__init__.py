"""Reports: evaluation, what a file is, and the demonstration."""
