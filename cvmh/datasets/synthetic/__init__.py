"""Synthetic aerial scenes with exact labels, for tests, demonstrations and quick starts."""

from cvmh.datasets.synthetic.scene import SyntheticScene, make_scene, scene_origin

__all__ = ["SyntheticScene", "make_scene", "scene_origin"]
