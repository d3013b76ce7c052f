"""What the published weight files of each family hold: shapes by key, from their descriptions.

A function for each family, of the name of a variant; nothing here knows the code that is tested.
"""


def biased(start, shape):
    """Return the keys of a layer with weight and bias."""
    return {f"{start}.weight": shape, f"{start}.bias": (shape[0],)}


def batch_norm(start, channels):
    """Return the keys of a batch norm."""
    running = {f"{start}.running_mean": (channels,), f"{start}.running_var": (channels,)}
    return biased(start, (channels,)) | running | {f"{start}.num_batches_tracked": ()}


# VSSD: width, heads of the first stage, depths, states.
VSSD = {
    "vssd_micro": (48, 2, (2, 2, 8, 4), 48),
    "vssd_tiny": (64, 2, (2, 4, 8, 4), 64),
    "vssd_small": (64, 2, (3, 4, 21, 5), 64),
    "vssd_base": (96, 3, (3, 4, 21, 5), 64),
}


def vssd(name):
    """Return the shapes of a published file of VSSD by key (specification 3.3)."""
    width, heads, depths, states = VSSD[name]
    half = width // 2
    shapes = {
        **_unbiased("patch_embed.conv1", (half, 3, 3, 3)),
        **_unbiased("patch_embed.conv2.0", (half, half, 3, 3)),
        **_unbiased("patch_embed.conv2.1", (half, half, 3, 3)),
        **_unbiased("patch_embed.conv3.0", (4 * width, half, 3, 3)),
        **_unbiased("patch_embed.conv3.1", (width, 4 * width, 1, 1)),
    }
    for stage, depth in enumerate(depths):
        C, h = width * 2**stage, heads * 2**stage
        for block in range(depth):
            start = f"layers.{stage}.blocks.{block}"
            shapes |= biased(f"{start}.cpe1", (C, 1, 3, 3))
            shapes |= biased(f"{start}.norm1", (C,))
            shapes |= _attended(start, C) if stage == 3 else _mixed(start, C, h, states)
            shapes |= biased(f"{start}.cpe2", (C, 1, 3, 3))
            shapes |= biased(f"{start}.norm2", (C,))
            shapes |= biased(f"{start}.mlp.fc1", (4 * C, C)) | biased(
                f"{start}.mlp.fc2", (C, 4 * C)
            )
        if stage < 3:
            start = f"layers.{stage}.downsample.conv"
            shapes |= biased(f"{start}.0.conv", (8 * C, C, 1, 1))
            shapes |= biased(f"{start}.1.conv", (8 * C, 1, 3, 3))
            shapes |= biased(f"{start}.2.conv", (2 * C, 8 * C, 1, 1))
            shapes |= batch_norm(f"{start}.2.norm", 2 * C)
    return shapes | biased("norm", (8 * width,)) | biased("head", (1000, 8 * width))


def _mixed(start, C, heads, states):
    inner = 2 * C
    mixed = inner + 2 * states
    return {
        f"{start}.attn.dt_bias": (heads,),
        f"{start}.attn.A_log": (heads,),
        f"{start}.attn.D": (heads,),
        f"{start}.attn.in_proj.weight": (inner + mixed + heads, C),
        **biased(f"{start}.attn.conv2d", (mixed, 1, 3, 3)),
        **biased(f"{start}.attn.norm", (inner,)),
        f"{start}.attn.out_proj.weight": (C, inner),
    }


def _attended(start, C):
    return {f"{start}.attn.to_qkv.weight": (3 * C, C), **biased(f"{start}.attn.to_out", (C, C))}


def _unbiased(start, shape):
    return {f"{start}.conv.weight": shape, **batch_norm(f"{start}.norm", shape[0])}
