"""Training: losses, the LightningModule, the run."""

from cvmh.train.run import TrainingResult, train

__all__ = ["TrainingResult", "train"]
