"""Layers of the encoders in NumPy, in float64, written from the equations and slow on purpose.

Maps are (H, W, C). Weights are given by their published names, ``start`` stands before them.
"""

import numpy as np
from scipy.special import erf, expit


def draw(shapes, seed=0):
    """Return random float64 weights of the given shapes, such that no layer dies or explodes."""
    rng = np.random.default_rng(seed)
    return {key: _drawn(rng, key, shape) for key, shape in shapes.items()}


def _drawn(rng, key, shape):
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, "int64")
    if key.endswith(("running_var", "skip_scale")):
        return rng.uniform(0.5, 1.5, shape)
    if key.endswith("A_logs"):
        return rng.uniform(-1, 2, shape)
    if len(shape) > 1 and not key.endswith("dt_projs_bias"):
        return rng.normal(0, 1.5 / np.sqrt(np.prod(shape[1:])), shape)
    return (1.0 if key.endswith(("weight", "Ds")) else 0.0) + rng.normal(0, 0.3, shape)


def silu(x):
    return x * expit(x)


def gelu(x):
    return x * (1 + erf(x / np.sqrt(2))) / 2


def relu(x):
    return np.where(x > 0, x, 0)


def layer_norm(x, weights, start, eps=1e-5):
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    normed = (x - mean) / np.sqrt(variance + eps)
    return normed * weights[f"{start}.weight"] + weights[f"{start}.bias"]


def batch_norm(x, weights, start, eps=1e-5):
    mean, variance = weights[f"{start}.running_mean"], weights[f"{start}.running_var"]
    normed = (x - mean) / np.sqrt(variance + eps)
    return normed * weights[f"{start}.weight"] + weights[f"{start}.bias"]


def linear(x, weights, start):
    return x @ weights[f"{start}.weight"].T + weights.get(f"{start}.bias", 0)


def conv(x, weights, start, *, stride=1, padding=0, is_depthwise=False):
    kernel = weights[f"{start}.weight"]
    size = kernel.shape[-1]
    padded = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
    height, width = ((side - size) // stride + 1 for side in padded.shape[:2])
    result = np.zeros((height, width, len(kernel)))
    for row in range(height):
        for column in range(width):
            top, left = row * stride, column * stride
            window = padded[top : top + size, left : left + size]
            if is_depthwise:
                result[row, column] = np.einsum("ijc,cij->c", window, kernel[:, 0])
            else:
                result[row, column] = np.einsum("ijc,ocij->o", window, kernel)
    return result + weights.get(f"{start}.bias", 0)


def cross_path(number, height, width):
    """Return the pixels of a path of the cross scan in the order in which it visits them."""
    if number % 2 == 0:
        path = [(row, column) for row in range(height) for column in range(width)]
    else:
        path = [(row, column) for column in range(width) for row in range(height)]
    return path if number < 2 else path[::-1]


def scan(u, path, *, x_proj, dt_weight, dt_bias, A_log, skip):
    """Walk a path over a map (H, W, D) with a state for each channel and number."""
    num_states = A_log.shape[1]
    rank = dt_weight.shape[1]
    state, result = np.zeros(A_log.shape), np.zeros(u.shape)
    for pixel in path:
        projected = x_proj @ u[pixel]
        dt = np.logaddexp(0, dt_weight @ projected[:rank] + dt_bias)
        into, out = projected[rank : rank + num_states], projected[rank + num_states :]
        for channel in range(len(dt)):
            for number in range(num_states):
                decay = np.exp(-np.exp(A_log[channel, number]) * dt[channel])
                state[channel, number] *= decay
                state[channel, number] += dt[channel] * into[number] * u[pixel][channel]
        result[pixel] = state @ out + skip * u[pixel]
    return result


def ss2d(x, weights, start, *, numbers=(0, 1, 2, 3), is_gated):
    """Mix a map by scans along some paths of the cross scan, as VMamba v0 (gated) or v2."""
    u = linear(x, weights, f"{start}.in_proj")
    if is_gated:
        u, gate = np.split(u, 2, axis=-1)
    u = silu(conv(u, weights, f"{start}.conv2d", padding=1, is_depthwise=True))
    height, width, inner = u.shape
    merged = np.zeros(u.shape)
    for index, number in enumerate(numbers):
        own = slice(index * inner, (index + 1) * inner)
        merged += scan(
            u,
            cross_path(number, height, width),
            x_proj=weights[f"{start}.x_proj_weight"][index],
            dt_weight=weights[f"{start}.dt_projs_weight"][index],
            dt_bias=weights[f"{start}.dt_projs_bias"][index],
            A_log=weights[f"{start}.A_logs"][own],
            skip=weights[f"{start}.Ds"][own],
        )
    y = layer_norm(merged, weights, f"{start}.out_norm")
    return linear(y * silu(gate) if is_gated else y, weights, f"{start}.out_proj")
