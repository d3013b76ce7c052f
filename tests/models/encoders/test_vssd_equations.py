"""VSSD gives what its equations give, with weights under their published names."""

import numpy as np
import pytest
import torch

from cvmh.models.encoders import create_encoder
from cvmh.models.weights.vssd import VSSD_LAYOUT

# A network with every part of the published ones; its heads double from stage to stage as theirs.
DEPTHS, HEADS = (1, 2, 1, 1), (1, 2, 4, 8)


class Equations:
    """VSSD in float64 NumPy, of weights under their published names, for one image (C, H, W)."""

    def __init__(self, weights, *, depths, heads):
        self.weights, self.depths, self.heads = weights, depths, heads

    def maps(self, image):
        """Return the maps of the four stages, before any norm."""
        x, maps = self.stem(image), []
        for stage, depth in enumerate(self.depths):
            for block in range(depth):
                x = self.block(x, f"layers.{stage}.blocks.{block}", heads=self.heads[stage])
            maps.append(x)
            if stage < 3:
                x = self.downsample(x, f"layers.{stage}.downsample.conv")
        return maps

    def stem(self, image):
        x = self.conv(image, "patch_embed.conv1", stride=2, relu=True)
        branch = self.conv(x, "patch_embed.conv2.0", relu=True)
        x = x + self.conv(branch, "patch_embed.conv2.1")
        x = self.conv(x, "patch_embed.conv3.0", stride=2, relu=True)
        return self.conv(x, "patch_embed.conv3.1")

    def downsample(self, x, start):
        x = self.conv(x, f"{start}.0", relu=True)
        x = self.conv(x, f"{start}.1", stride=2, relu=True)
        return self.conv(x, f"{start}.2")

    def block(self, x, start, *, heads):
        x = x + self.convolve(x, f"{start}.cpe1")
        mix = self.attend if f"{start}.attn.to_qkv.weight" in self.weights else self.mix
        x = x + mix(self.norm(x, f"{start}.norm1"), f"{start}.attn", heads=heads)
        x = x + self.convolve(x, f"{start}.cpe2")
        hidden = self.linear(self.norm(x, f"{start}.norm2"), f"{start}.mlp.fc1")
        half = torch.from_numpy(hidden / np.sqrt(2)).erf().numpy()
        return x + self.linear(hidden * (1 + half) / 2, f"{start}.mlp.fc2")

    def mix(self, x, start, *, heads):
        inner = 2 * len(x)
        projected = self.linear(x, f"{start}.in_proj")
        gate, signal, dt = projected[:inner], projected[inner:-heads], projected[-heads:]
        signal = self.convolve(signal, f"{start}.conv2d")
        signal = (signal / (1 + np.exp(-signal))).reshape(len(signal), -1)
        num_states = (len(signal) - inner) // 2
        B, C = signal[inner : inner + num_states], signal[inner + num_states :]
        result = np.zeros_like(signal[:inner])
        for head in range(heads):
            part = slice(head * inner // heads, (head + 1) * inner // heads)
            step = np.log1p(np.exp(dt[head].ravel() + self.weights[f"{start}.dt_bias"][head]))
            weight = step * np.exp(self.weights[f"{start}.A_log"][head])
            state = np.einsum("nt,t,pt->np", B, weight, signal[part])
            skipped = self.weights[f"{start}.D"][head] * signal[part]
            result[part] = np.einsum("nt,np->pt", C, state) + skipped
        mixed = self.norm(result.reshape(gate.shape), f"{start}.norm") * gate
        return self.linear(mixed, f"{start}.out_proj")

    def attend(self, x, start, *, heads):
        query, key, value = np.split(self.linear(x, f"{start}.to_qkv").reshape(3 * len(x), -1), 3)
        result = np.zeros_like(value)
        for part in np.split(np.arange(len(x)), heads):
            alike = np.exp(query[part].T @ key[part] / np.sqrt(len(part)))
            result[part] = value[part] @ (alike / alike.sum(axis=1, keepdims=True)).T
        return self.linear(result.reshape(x.shape), f"{start}.to_out")

    def conv(self, x, start, *, stride=1, relu=False):
        """Convolution with its batch norm and ReLU where it has them."""
        x = self.convolve(x, f"{start}.conv", stride=stride)
        if f"{start}.norm.weight" in self.weights:
            keys = ("running_mean", "running_var", "weight", "bias")
            mean, var, scale, shift = (
                self.weights[f"{start}.norm.{key}"][:, None, None] for key in keys
            )
            x = (x - mean) / np.sqrt(var + 1e-5) * scale + shift
        return np.maximum(x, 0) if relu else x

    def convolve(self, x, start, *, stride=1):
        kernel = self.weights[f"{start}.weight"]
        size, (_, height, width) = kernel.shape[-1], x.shape
        pad = size // 2
        padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
        result = 0
        for i in range(size):
            for j in range(size):
                seen = padded[:, i : i + height : stride, j : j + width : stride]
                is_depthwise = kernel.shape[1] == 1
                taps = kernel[:, 0, i, j][:, None, None] if is_depthwise else kernel[:, :, i, j]
                result = result + (taps * seen if is_depthwise else np.tensordot(taps, seen, 1))
        return result + self.bias(start)

    def linear(self, x, start):
        return np.tensordot(self.weights[f"{start}.weight"], x, 1) + self.bias(start)

    def bias(self, start):
        bias = self.weights.get(f"{start}.bias")
        return 0 if bias is None else bias[:, None, None]

    def norm(self, x, start):
        scale = self.weights[f"{start}.weight"][:, None, None]
        return self.standardise(x) * scale + self.bias(start)

    def standardise(self, x):
        centred = x - x.mean(axis=0)
        return centred / np.sqrt((centred**2).mean(axis=0) + 1e-5)


def draw_weights(shapes):
    """Return values of a trained network's sizes for each key."""
    rng = np.random.default_rng(0)
    weights = {}
    for key, shape in shapes.items():
        fan_in = np.prod(shape[1:]) if len(shape) > 1 else 4
        weights[key] = rng.normal(0, fan_in**-0.5, shape)
        if key.endswith("running_var"):
            weights[key] = rng.uniform(0.5, 1.5, shape)
        if key.endswith("num_batches_tracked"):
            weights[key] = np.array(7)
    return weights


@pytest.mark.parametrize("size", [(33, 47), (32, 64), (1, 5)])
def test_it_gives_what_the_equations_give_with_published_weights(published_weights, size):
    shapes = published_weights.vssd_of(8, 1, DEPTHS, 3)
    weights = {k: v for k, v in draw_weights(shapes).items() if not k.startswith("head.")}
    encoder = create_encoder("vssd_tiny", width=8, depths=DEPTHS, heads=HEADS, d_state=3)
    encoder = encoder.double().eval()
    named = {VSSD_LAYOUT.rename(key): torch.from_numpy(value) for key, value in weights.items()}
    assert not encoder.load_state_dict(named, strict=False).unexpected_keys

    image = np.random.default_rng(1).normal(size=(3, *size))
    equations = Equations(weights, depths=DEPTHS, heads=HEADS)
    # Published files hold the norm of the last map only; the others are new, scale 1 and shift 0.
    *firsts, last = equations.maps(image)
    expected = [equations.standardise(x) for x in firsts] + [equations.norm(last, "norm")]
    with torch.no_grad():
        maps = encoder(torch.from_numpy(image)[None])
    for got, wanted in zip(maps, expected, strict=True):
        torch.testing.assert_close(got[0], torch.from_numpy(wanted), rtol=1e-8, atol=1e-8)
