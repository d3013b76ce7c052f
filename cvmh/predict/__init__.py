"""Prediction over scenes of any size."""

from cvmh.predict.scene import PredictionReport, predict_raster

__all__ = ["PredictionReport", "predict_raster"]
