"""cvmh: segment satellite and aerial images with vision state space models."""
