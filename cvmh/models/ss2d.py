"""SS2D and CS2D: the gated mixer of four directional selective scans.

B batch, C channels, H W map, L = H W tokens, D inner channels, N state size, K directions,
R rank of dt.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cvmh.ops import selective_scan
from cvmh.ops.traversal import order_table

LineOrder = Literal["natural", "figure"]
# Delta starts log-uniform between these, never below the floor (as in VMamba).
DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 1e-1, 1e-4


class SS2D(nn.Module):
    """Mix a map by four selective scans along different paths, gated (CVMH-UNet, Fig. 2b).

    The mixer of VMamba v0. ``n W_in`` is split into a signal and a gate; the signal passes a
    depth-wise 3x3 convolution, SiLU, four selective scans with own parameters, their sum, and a
    LayerNorm; the result times SiLU of the gate is projected back.
    """

    def __init__(
        self,
        channels: int,
        *,
        d_state: int = 16,
        expand: float = 2.0,
        dt_rank: int | None = None,
        paths: str = "cs2d",
        line_order: LineOrder = "natural",
    ) -> None:
        super().__init__()
        inner = int(expand * channels)
        self.d_state = d_state
        self.dt_rank = dt_rank or math.ceil(channels / 16)
        self.paths, self.line_order = paths, line_order
        self.in_proj = nn.Linear(channels, 2 * inner, bias=False)
        self.conv = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        num_paths = 4
        # Raw, as default-initialised projections would be: VMamba's classification code.
        self.x_proj_weight = nn.Parameter(
            torch.empty(num_paths, self.dt_rank + 2 * d_state, inner).uniform_(
                -(inner**-0.5), inner**-0.5
            )
        )
        self.dt_weight = nn.Parameter(
            torch.empty(num_paths, self.dt_rank, inner).uniform_(
                -(self.dt_rank**-0.5), self.dt_rank**-0.5
            )
        )
        self.dt_bias = nn.Parameter(_initial_dt_bias(num_paths, inner))
        steps = torch.arange(1, d_state + 1, dtype=torch.float32)
        self.A_log = nn.Parameter(steps.log().expand(num_paths, inner, d_state).clone())
        self.D = nn.Parameter(torch.ones(num_paths, inner))
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, channels, bias=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        signal, gate = self.in_proj(x_BHWC).chunk(2, dim=-1)
        signal = self.conv(signal.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        mixed = self.out_norm(self._scan(functional.silu(signal)).to(gate.dtype))
        return self.out_proj(mixed * functional.silu(gate))

    def _scan(self, x_BHWD: Tensor) -> Tensor:
        batch, height, width, inner = x_BHWD.shape
        x_BLD = x_BHWD.reshape(batch, height * width, inner)
        num_paths, parts, _ = self.x_proj_weight.shape
        projected = functional.linear(x_BLD, self.x_proj_weight.view(-1, inner))
        projected = projected.view(batch, -1, num_paths, parts).transpose(1, 2)
        dt, B, C = projected.split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        y_BLD = selective_scan(
            x_BLD,
            dt,
            -self.A_log.float().exp(),
            B,
            C,
            self.D,
            order=self._order(height, width, x_BLD.device),
            dt_bias=self.dt_bias,
            dt_softplus=True,
            dt_weight=self.dt_weight,
        )
        return y_BLD.view(batch, height, width, inner)

    def _order(self, height: int, width: int, device: torch.device) -> Tensor:
        return order_table(self.paths, height, width, line_order=self.line_order).to(device)


def _initial_dt_bias(num_paths: int, inner: int) -> Tensor:
    low, high = math.log(DT_MIN), math.log(DT_MAX)
    dt = torch.exp(torch.rand(num_paths, inner) * (high - low) + low).clamp(min=DT_FLOOR)
    # The inverse of softplus.
    return dt + torch.log(-torch.expm1(-dt))
