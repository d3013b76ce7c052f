"""Training: losses, the LightningModule, the run."""

from cvmh.train.folder import TrainingResult
from cvmh.train.run import check, train

__all__ = ["TrainingResult", "check", "train"]
