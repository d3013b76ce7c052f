"""Training: losses, the LightningModule, the run."""

from cvmh.train.run import TrainingResult, check, train

__all__ = ["TrainingResult", "check", "train"]
