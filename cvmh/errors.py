"""The errors that cvmh raises on purpose, each also a builtin error.

A message is one sentence: which argument, what was required, what came, and what to do.
"""


class CvmhError(Exception):
    """Root of every error that cvmh raises on purpose."""


class ConfigError(CvmhError, ValueError):
    """A setting of a run is unknown, malformed or contradicts another."""


class ShapeError(CvmhError, ValueError):
    """A tensor or array does not have the shape, dtype or device that was required."""


class RasterError(CvmhError, OSError):
    """A raster cannot be opened, read or written, or does not fit its use."""


class VectorError(CvmhError, OSError):
    """Polygons cannot be read, or do not fit the raster that they are laid over."""


class DataError(CvmhError, ValueError):
    """A data set on disk is incomplete or contradicts itself."""


class BundleError(CvmhError, ValueError):
    """A file is not a bundle, or a bundle does not fit its use."""


class WeightsError(CvmhError, ValueError):
    """A file of published weights cannot be read, fetched, or does not fit its use."""


class KernelError(CvmhError, RuntimeError):
    """A scan backend is unknown, not installed, or failed."""


class TrainingError(CvmhError, RuntimeError):
    """Training cannot go on, for example because a loss is not finite."""


class LostProcessError(TrainingError):
    """Another process of a run ended, or did not answer in time."""


class OutputError(CvmhError, OSError):
    """An output cannot be written: it exists, its folder does not, or the disk is full."""
