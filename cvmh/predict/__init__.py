"""From scenes to masks, in bounded memory, and nothing computed twice."""

from cvmh.predict.options import PredictOptions
from cvmh.predict.plan import ScenePlan
from cvmh.predict.report import PredictionReport
from cvmh.predict.scene import plan_prediction, predict_raster

__all__ = ["PredictOptions", "PredictionReport", "ScenePlan", "plan_prediction", "predict_raster"]
