"""Self-attention of all pixels of a map: the mixer of VSSD's last stage.

B batch, H W map, L = H W pixels, C channels.
"""

from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Mix a map by multi-head self-attention, without a term for positions.

    Args:
        channels: C.
        num_heads: heads of C / num_heads channels.
    """

    def __init__(self, channels: int, *, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj = nn.Linear(channels, 3 * channels, bias=False)
        self.out_proj = nn.Linear(channels, channels)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        query, key, value = (
            part.flatten(1, 2).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in self.in_proj(x_BHWC).chunk(3, dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.out_proj(mixed.transpose(1, 2).reshape(x_BHWC.shape))
