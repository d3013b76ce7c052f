"""SS2D and CS2D: mixers of directional selective scans.

B batch, C channels, H W map, L = H W tokens, D inner channels, N state size, K paths, T steps of a
path, R rank of dt.
"""

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from cvmh.models.layers import WideNorm, to_channels_first, to_channels_last
from cvmh.models.pruning.grid import WHOLE, Grid, LineOrder
from cvmh.models.pruning.scores import Meter
from cvmh.ops import selective_scan
from cvmh.ops.traversal import inverse_table, order_table, step_directions

# A path starts, or goes right, left, up or down.
NUM_DIRECTIONS = 5
# Delta starts log-uniform between these, never below the floor (as in VMamba).
DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 1e-1, 1e-4
# Exponents of factors add up to so much at most: float32 ends at e^88.7.
MOST_EXPONENT = 80.0


class SS2D(nn.Module):
    """Mix a map by selective scans along different paths: the mixer of the whole Mamba family.

    ``n W_in`` is split into a signal and a gate; the signal passes a depth-wise convolution, SiLU,
    one selective scan for each path, their sum, and a LayerNorm; the result times SiLU of the gate
    is projected back. The defaults are CVMH-UNet's (Fig. 2b); with ``paths="ss2d"`` they are those
    of VMamba v0, and without gate and convolution bias those of VMamba v2 ("v05_noz").

    Args:
        channels: C.
        d_state: N.
        expand: D / C.
        dt_rank: R; None is ceil(C / 16).
        paths: which paths are scanned, as of :func:`~cvmh.ops.traversal.order_table`.
        line_order: of ``cs2d``.
        is_gated: whether there is a gate.
        conv_size: side of the depth-wise convolution, odd, or its height and width: (1, 3) is for
            series, which are maps of height 1.
        conv_bias: whether it has a bias.
        is_causal: whether it sees no column to the right, as a series along the columns wants it;
            its width may then be even.
        proj_bias: whether the first and the last projection have one.
        has_norm: whether there is a LayerNorm behind the scans.
        is_shared: whether all paths have the same parameters.
        reorder_parameters: whether dt, B and C of a step are those of the pixel that it visits.
            PlainMamba's published weights want them of the pixel whose number is the step's.
        double_dt_bias: whether the bias of dt counts twice, as in PlainMamba's code.
        has_directions: whether B gets a learned term for the direction in which the path came
            (PlainMamba's direction-aware update).
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
        is_gated: bool = True,
        conv_size: int | tuple[int, int] = 3,
        conv_bias: bool = True,
        is_causal: bool = False,
        proj_bias: bool = False,
        has_norm: bool = True,
        is_shared: bool = False,
        reorder_parameters: bool = True,
        double_dt_bias: bool = False,
        has_directions: bool = False,
    ) -> None:
        super().__init__()
        inner = int(expand * channels)
        self.d_state = d_state
        self.dt_rank = dt_rank or math.ceil(channels / 16)
        self.paths, self.line_order = paths, line_order
        self.is_gated, self.is_causal = is_gated, is_causal
        self.reorder_parameters, self.double_dt_bias = reorder_parameters, double_dt_bias
        self.in_proj = nn.Linear(channels, (1 + is_gated) * inner, bias=proj_bias)
        high, wide = (conv_size, conv_size) if isinstance(conv_size, int) else conv_size
        self.conv = nn.Conv2d(
            *(inner, inner, (high, wide)),
            padding=(high // 2, wide - 1 if is_causal else wide // 2),
            groups=inner,
            bias=conv_bias,
        )
        num_sets = 1 if is_shared else order_table(paths, 1, 1).shape[0]
        # Raw, as default-initialised projections would be: VMamba's classification code.
        self.x_proj_weight = nn.Parameter(
            torch.empty(num_sets, self.dt_rank + 2 * d_state, inner).uniform_(
                -(inner**-0.5), inner**-0.5
            )
        )
        self.dt_weight = nn.Parameter(
            torch.empty(num_sets, self.dt_rank, inner).uniform_(
                -(self.dt_rank**-0.5), self.dt_rank**-0.5
            )
        )
        self.dt_bias = nn.Parameter(initial_dt_bias(num_sets, inner))
        steps = torch.arange(1, d_state + 1, dtype=torch.float32)
        self.A_log = nn.Parameter(steps.log().expand(num_sets, inner, d_state).clone())
        self.D = nn.Parameter(torch.ones(num_sets, inner))
        self.direction_weight: nn.Parameter | None = None
        if has_directions:
            self.direction_weight = nn.Parameter(torch.empty(NUM_DIRECTIONS, d_state))
            nn.init.trunc_normal_(self.direction_weight, std=0.02)
        self.out_norm = WideNorm(inner) if has_norm else nn.Identity()
        self.out_proj = nn.Linear(inner, channels, bias=proj_bias)

    def forward(self, x_BHWC: Tensor, grid: Grid = WHOLE, meter: Meter | None = None) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C); the grid says which tokens these are.

        A meter is shown what the scans add up to, and their steps.
        """
        signal, *gate = self.in_proj(x_BHWC).chunk(1 + self.is_gated, dim=-1)
        signal = self._convolve(signal, grid)
        scanned = self._scan(signal, grid)
        if meter is not None:
            meter.read(scanned, partial(self._mean_step, signal))
        mixed = self.out_norm(scanned).to(signal.dtype)
        if self.is_gated:
            mixed = mixed * functional.silu(gate[0])
        return self.out_proj(mixed)

    def steps(self, x_BHWC: Tensor, grid: Grid = WHOLE) -> Tensor:
        """Return the mean step of the scans at each pixel, (B, H, W), without scanning."""
        inner = self.conv.in_channels
        bias = None if self.in_proj.bias is None else self.in_proj.bias[:inner]
        signal = functional.linear(x_BHWC, self.in_proj.weight[:inner], bias)
        return self._mean_step(self._convolve(signal, grid))

    def _convolve(self, signal_BHWD: Tensor, grid: Grid) -> Tensor:
        """Return what is scanned of what is projected."""
        width = signal_BHWD.shape[2]
        signal_BHWD = to_channels_last(grid.convolve(self.conv, to_channels_first(signal_BHWD)))
        if self.is_causal:
            # It was padded on both sides.
            signal_BHWD = signal_BHWD[..., :width, :]
        return grid.blank(functional.silu(signal_BHWD))

    def _scan(self, x_BHWD: Tensor, grid: Grid) -> Tensor:
        projected = functional.linear(x_BHWD, self.x_proj_weight.flatten(0, 1))
        if self.reorder_parameters or not grid.has_gaps:
            return self._scan_projected(x_BHWD, projected, grid)
        # Steps over pruned tokens decay by the dt of kept ones: to walk all of them takes less
        # time than to sum up the decay over each gap, of each channel.
        whole = self._scan_projected(grid.put(x_BHWD), grid.put(projected), WHOLE)
        return grid.take(whole)

    def _scan_projected(self, x_BHWD: Tensor, projected_BHWP: Tensor, grid: Grid) -> Tensor:
        x_BLD, projected = grid.flatten(x_BHWD), grid.flatten(projected_BHWP)
        order, gap = grid.paths(self.paths, self.line_order, x_BHWD)
        num_paths = order.shape[-2]
        projected = projected.unflatten(-1, self.x_proj_weight.shape[:2]).transpose(1, 2)
        projected = projected.expand(-1, num_paths, -1, -1)
        if not self.reorder_parameters:
            givers = grid.givers(self.paths, self.line_order, x_BHWD)
            projected = _of_givers(projected, givers)
        dt, B, C = projected.split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        if self.direction_weight is not None:
            B = B + grid.at_tokens(self._direction_terms(grid, x_BHWD), x_BHWD)
        dt_bias = (2 * self.dt_bias if self.double_dt_bias else self.dt_bias).expand(num_paths, -1)
        y_BLD = selective_scan(
            x_BLD,
            dt,
            -self._wide(self.A_log).exp().expand(num_paths, -1, -1),
            B,
            C,
            self.D.expand(num_paths, -1),
            order=order,
            gap=gap,
            # The step of a zero token, whose projections are zero.
            gap_dt=None if gap is None else functional.softplus(self._wide(dt_bias)),
            dt_bias=dt_bias,
            dt_softplus=True,
            dt_weight=self.dt_weight.expand(num_paths, -1, -1),
        )
        return y_BLD.view(x_BHWD.shape)

    @torch.no_grad()
    def _mean_step(self, x_BHWD: Tensor) -> Tensor:
        """Return the mean of dt over paths and channels at each pixel, (B, H, W), as a score."""
        rows_KRD = self.x_proj_weight[:, : self.dt_rank]
        lows = functional.linear(x_BHWD, rows_KRD.flatten(0, 1)).chunk(len(rows_KRD), -1)
        bias = 2 * self.dt_bias if self.double_dt_bias else self.dt_bias
        # softplus(a) + softplus(b) = log((1 + exp(a)) (1 + exp(b))), and logarithms are slow. What
        # a factor would overflow with is added behind: there softplus is the line.
        highest = MOST_EXPONENT / len(rows_KRD)
        product = torch.ones((), device=x_BHWD.device)
        beyond = torch.zeros_like(product)
        for low, weight_RD, bias_D in zip(lows, self.dt_weight, bias, strict=True):
            steps = self._wide(functional.linear(low, weight_RD.T, bias_D))
            low_steps = steps.clamp(max=highest)
            beyond = steps.sub_(low_steps).add_(beyond)
            product = low_steps.exp_().add_(1).mul_(product)
        return product.log_().add_(beyond).mean(-1) / len(rows_KRD)

    def _direction_terms(self, grid: Grid, x_BHWD: Tensor) -> Tensor:
        """Return what B gets at each pixel of the whole map, (K, L, N)."""
        height, width = grid.size_of(to_channels_first(x_BHWD))
        order = order_table(
            self.paths, height, width, line_order=self.line_order, device=x_BHWD.device
        )
        assert self.direction_weight is not None
        came = step_directions(order, width)
        visited = inverse_table(order, order.shape[-1])[None]
        return _of_givers(self.direction_weight[came][None], visited)[0]

    @staticmethod
    def _wide(tensor: Tensor) -> Tensor:
        # Networks in 16 bit keep their decay rates exact.
        return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _of_givers(values_BKTN: Tensor, giver_BKL: Tensor) -> Tensor:
    """Give to each token the values of another, or of the step that visits it: (B, K, L, N)."""
    if len(giver_BKL) == 1:
        path = torch.arange(giver_BKL.shape[1], device=giver_BKL.device)[:, None]
        return values_BKTN[:, path, giver_BKL[0].long()]
    index = giver_BKL[..., None].expand(-1, -1, -1, values_BKTN.shape[-1])
    return values_BKTN.gather(2, index)


def initial_dt_bias(*shape: int) -> Tensor:
    """Draw biases whose softplus, the step before anything is learned, is log-uniform."""
    low, high = math.log(DT_MIN), math.log(DT_MAX)
    dt = torch.exp(torch.rand(*shape) * (high - low) + low).clamp(min=DT_FLOOR)
    # The inverse of softplus.
    return dt + torch.log(-torch.expm1(-dt))
