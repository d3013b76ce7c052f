"""An image classifier on an encoder: what the published weights were trained as.

B batch, C channels, H W map.
"""

from torch import Tensor, nn

from cvmh.models.encoders.encoder import Encoder


class Classifier(nn.Module):
    """Average the last map of an encoder over the image and give logits of its classes."""

    def __init__(self, encoder: Encoder, num_classes: int = 1000) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.widths[-1], num_classes)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return logits (B, num_classes) of an image (B, bands, H, W)."""
        return self.head(self.encoder(image_BCHW)[-1].mean(dim=(2, 3)))
