"""Joint augmentation of image, label and validity, with albumentations.

Geometry moves all three together; radiometry changes the image alone. Images are normalised
float32, so that the strengths mean the same for any dtype and any number of bands.
"""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

# albumentations asks a server for its newest version when it is imported, unless told not to.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations

from cvmh.config import AugmentSettings


class RadiometricJitter(albumentations.ImageOnlyTransform):
    """Change brightness, contrast, the balance of the bands, and add noise.

    ``x' = c (x + b + b_band) + noise`` on an image of mean 0 and deviation 1 per band, with
    ``c`` in 1 +- contrast, ``b`` in +- brightness, ``b_band`` in +- band_shift.
    """

    def __init__(self, settings: AugmentSettings) -> None:
        super().__init__(p=settings.radiometry)
        self.settings = settings

    def apply(self, img: NDArray[np.float32], **params: Any) -> NDArray[np.float32]:
        """Return the changed image (H, W, bands) float32."""
        generator, settings = self.random_generator, self.settings
        shift = generator.uniform(-settings.brightness, settings.brightness)
        per_band = generator.uniform(-settings.band_shift, settings.band_shift, img.shape[-1])
        factor = generator.uniform(1 - settings.contrast, 1 + settings.contrast)
        noise = generator.standard_normal(img.shape, dtype=np.float32)
        noise *= np.float32(generator.uniform(0, settings.noise))
        changed = img + np.asarray(shift + per_band, dtype=np.float32)
        changed *= np.float32(factor)
        changed += noise
        return changed


class Augmentation:
    """Augment one sample; the same seed gives the same result, in any process."""

    def __init__(self, settings: AugmentSettings) -> None:
        self.settings = settings
        self._pipeline = albumentations.Compose(
            [
                albumentations.HorizontalFlip(p=settings.flips),
                albumentations.VerticalFlip(p=settings.flips),
                albumentations.RandomRotate90(p=settings.rotations),
                RadiometricJitter(settings),
            ]
        )

    def __call__(
        self,
        image: NDArray[np.float32],
        label: NDArray[np.uint8],
        validity: NDArray[np.bool_],
        *,
        seed: int,
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Return image (bands, H, W) and label (H, W), augmented; invalid pixels stay 0.

        Args:
            image: normalised (bands, H, W) float32, square.
            label: class ids (H, W), 255 where it does not count.
            validity: (H, W), true where the image has data.
            seed: fixes every draw.
        """
        self._seed(seed)
        result = self._pipeline(
            image=np.ascontiguousarray(image.transpose(1, 2, 0)),
            masks=[label, validity.astype(np.uint8)],
        )
        moved_label, moved_validity = result["masks"]
        moved = result["image"] * moved_validity[..., None]
        return np.ascontiguousarray(moved.transpose(2, 0, 1)), np.ascontiguousarray(moved_label)

    def _seed(self, seed: int) -> None:
        # albumentations gives all transforms of a pipeline the same seed; they would then draw the
        # same numbers, so that both flips come together or not at all.
        transforms = self._pipeline.transforms
        states = np.random.SeedSequence(seed).generate_state(len(transforms) + 1).tolist()
        for part, state in zip((self._pipeline, *transforms), states, strict=True):
            part.set_random_seed(state)
