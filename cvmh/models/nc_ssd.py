"""NC-SSD: the mixer in which every pixel reads one state of the whole map (VSSD).

B batch, H W map, L = H W pixels, C channels, D inner channels, N state size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cvmh.models.layers import WideNorm, to_channels_first, to_channels_last
from cvmh.models.ss2d import initial_dt_bias
from cvmh.ops import nc_ssd

# Decay rates start uniform between these, as in Mamba-2; VSSD's sources are silent.
A_MIN, A_MAX = 1.0, 16.0


class NCSSD(nn.Module):
    """Mix a map by non-causal state space duality: matrix products alone, no scan and no order.

    ``n W_in`` is split into a gate, a signal with the weights B and C, and a step for each head;
    signal, B and C pass a depth-wise 3x3 convolution and SiLU; each pixel adds to the state of a
    head with the weight dt |A|, and every pixel reads the same state through C. A LayerNorm, times
    the gate, is projected back. The defaults are those of the published weights.

    Args:
        channels: C.
        num_heads: heads, each with its own step, decay rate and state; they divide D.
        d_state: N.
        expand: D / C.
        is_positive: whether the weights are dt |A|, else dt A.
        is_normalised: whether a head's weights sum to one over the map. They do not in the
            published networks, so that the state grows with the map.
        is_gate_activated: whether the gate passes SiLU. It does not in the published networks.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_heads: int,
        d_state: int = 64,
        expand: float = 2.0,
        is_positive: bool = True,
        is_normalised: bool = False,
        is_gate_activated: bool = False,
    ) -> None:
        super().__init__()
        inner = int(expand * channels)
        mixed = inner + 2 * d_state
        self.parts = (inner, mixed, num_heads)
        self.mixed_parts = (inner, d_state, d_state)
        self.is_positive, self.is_normalised = is_positive, is_normalised
        self.is_gate_activated = is_gate_activated
        self.in_proj = nn.Linear(channels, sum(self.parts), bias=False)
        self.conv = nn.Conv2d(mixed, mixed, 3, padding=1, groups=mixed)
        self.dt_bias = nn.Parameter(initial_dt_bias(num_heads))
        self.A_log = nn.Parameter(torch.empty(num_heads).uniform_(A_MIN, A_MAX).log())
        self.D = nn.Parameter(torch.ones(num_heads))
        self.out_norm = WideNorm(inner)
        self.out_proj = nn.Linear(inner, channels, bias=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        gate, signal, dt = self.in_proj(x_BHWC).split(self.parts, dim=-1)
        signal = functional.silu(to_channels_last(self.conv(to_channels_first(signal))))
        # The sum over the map can be large: it is normalised before it becomes 16 bit again.
        mixed = self.out_norm(self._mix(signal, dt)).to(gate.dtype)
        return self.out_proj(mixed * (functional.silu(gate) if self.is_gate_activated else gate))

    def _mix(self, signal_BHWD: Tensor, dt_BHWh: Tensor) -> Tensor:
        x_BLD, B_BLN, C_BLN = signal_BHWD.flatten(1, 2).split(self.mixed_parts, dim=-1)
        # Networks in 16 bit keep their decay rates exact.
        A_log = self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32))
        y_BLD = nc_ssd(
            x_BLD,
            dt_BHWh.flatten(1, 2),
            -A_log.exp(),
            B_BLN,
            C_BLN,
            self.D,
            dt_bias=self.dt_bias,
            dt_softplus=True,
            positive=self.is_positive,
            normalise=self.is_normalised,
        )
        return y_BLD.unflatten(1, signal_BHWD.shape[1:3])
