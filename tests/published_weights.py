"""What the published weight files of each family hold: shapes by key, from their descriptions.

A function for each family, of the name of a variant; nothing here knows the code that is tested.
"""

import re


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
    return vssd_of(*VSSD[name])


def vssd_of(width, heads, depths, states):
    """Return the shapes of a file of VSSD with other settings."""
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


# VMamba: generation, width, inner channels over channels, depths.
VMAMBA = {
    "vmamba_tiny_v0": ("v0", 96, 2, (2, 2, 9, 2)),
    "vmamba_small_v0": ("v0", 96, 2, (2, 2, 27, 2)),
    "vmamba_base_v0": ("v0", 128, 2, (2, 2, 27, 2)),
    "vmamba_tiny_s2l5": ("v2", 96, 2, (2, 2, 5, 2)),
    "vmamba_tiny_s1l8": ("v2", 96, 1, (2, 2, 8, 2)),
    "vmamba_small_s2l15": ("v2", 96, 2, (2, 2, 15, 2)),
    "vmamba_small_s1l20": ("v2", 96, 1, (2, 2, 20, 2)),
    "vmamba_base_s2l15": ("v2", 128, 2, (2, 2, 15, 2)),
    "vmamba_base_s1l20": ("v2", 128, 1, (2, 2, 20, 2)),
}
# Names as in the first months, in the classification code, and in the newer single file.
VMAMBA_STYLES = {
    "v0": ("january", "classification", "single_file"),
    "v2": ("classification", "single_file"),
}
JANUARY = (
    (r"patch_embed\.0", "patch_embed.proj"),
    (r"patch_embed\.2", "patch_embed.norm"),
    (r"(.*blocks\.\d+)\.norm", r"\1.ln_1"),
    (r"(.*blocks\.\d+)\.op", r"\1.self_attention"),
    (r"classifier\.(norm|head)", r"\1"),
)


def vmamba(name, *, style="classification"):
    """Return the shapes of a published file of VMamba by key (specification 3.2)."""
    return vmamba_of(*VMAMBA[name], style=style)


def vmamba_of(generation, width, ratio, depths, *, style="classification"):
    """Return the shapes of any VMamba by key."""
    make = _vmamba_v0 if generation == "v0" else _vmamba_v2
    shapes = make(width, ratio, depths, is_single=style == "single_file")
    if style == "january":
        for old, new in JANUARY:
            shapes = {re.sub(rf"^{old}(?=\.)", new, key): shape for key, shape in shapes.items()}
    return shapes


def _vmamba_v0(width, ratio, depths, *, is_single):
    shapes = biased("patch_embed.0", (width, 3, 4, 4)) | biased("patch_embed.2", (width,))
    for stage, depth in enumerate(depths):
        C = width * 2**stage
        for block in range(depth):
            start = f"layers.{stage}.blocks.{block}"
            shapes |= biased(f"{start}.norm", (C,))
            shapes |= _scanned(f"{start}.op", C, ratio * C, 16, 4, True, is_single)
        if stage < 3:
            norm, reduction = ("1", "2") if is_single else ("norm", "reduction")
            shapes |= biased(f"layers.{stage}.downsample.{norm}", (4 * C,))
            shapes |= {f"layers.{stage}.downsample.{reduction}.weight": (2 * C, 4 * C)}
    return shapes | _classifier("classifier.", 8 * width)


def _vmamba_v2(width, ratio, depths, *, is_single):
    half = width // 2
    shapes = biased("patch_embed.0", (half, 3, 3, 3)) | biased("patch_embed.2", (half,))
    shapes |= biased("patch_embed.5", (width, half, 3, 3)) | biased("patch_embed.7", (width,))
    for stage, depth in enumerate(depths):
        C = width * 2**stage
        for block in range(depth):
            start = f"layers.{stage}.blocks.{block}"
            shapes |= biased(f"{start}.norm", (C,))
            shapes |= _scanned(f"{start}.op", C, ratio * C, 1, 4, False, is_single)
            shapes |= biased(f"{start}.norm2", (C,))
            shapes |= biased(f"{start}.mlp.fc1", (4 * C, C))
            shapes |= biased(f"{start}.mlp.fc2", (C, 4 * C))
        if stage < 3:
            shapes |= biased(f"layers.{stage}.downsample.1", (2 * C, C, 3, 3))
            shapes |= biased(f"layers.{stage}.downsample.3", (2 * C,))
    return shapes | _classifier("classifier.", 8 * width)


def _classifier(start, channels):
    return biased(f"{start}norm", (channels,)) | biased(f"{start}head", (1000, channels))


def _scanned(start, C, D, N, K, is_gated, is_single=False):
    """Return the keys of a selective scan; a gated one has a convolution with bias."""
    R = -(-C // 16)
    projections = {"x_proj": (K, R + 2 * N, D), "dt_projs": (K, D, R)}
    shapes = {
        f"{start}.{name}.weight" if is_single else f"{start}.{name}_weight": (
            (k * rows, columns) if is_single else (k, rows, columns)
        )
        for name, (k, rows, columns) in projections.items()
    }
    shapes |= {
        f"{start}.dt_projs_bias": (K, D),
        f"{start}.A_logs": (K * D, N),
        f"{start}.Ds": (K * D,),
        f"{start}.in_proj.weight": ((1 + is_gated) * D, C),
        f"{start}.conv2d.weight": (D, 1, 3, 3),
        **biased(f"{start}.out_norm", (D,)),
        f"{start}.out_proj.weight": (C, D),
    }
    return shapes | ({f"{start}.conv2d.bias": (D,)} if is_gated else {})


# GroupMamba: width inside the stem, widths, depths.
GROUPMAMBA = {
    "groupmamba_tiny": (32, (64, 128, 348, 448), (3, 4, 9, 3)),
    "groupmamba_small": (64, (64, 128, 348, 512), (3, 4, 16, 3)),
    "groupmamba_base": (64, (96, 192, 424, 512), (3, 6, 21, 3)),
}


def groupmamba(name):
    """Return the shapes of a published file of GroupMamba by key (specification 3.4)."""
    return groupmamba_of(*GROUPMAMBA[name])


def groupmamba_of(stem, widths, depths, *, ratios=(8, 8, 4, 4)):
    """Return the shapes of any GroupMamba by key."""
    shapes = {}
    for index, channels in ((0, 3), (3, stem), (6, stem)):
        size = 3 if index else 7
        shapes[f"patch_embed1.conv.{index}.weight"] = (stem, channels, size, size)
        shapes |= batch_norm(f"patch_embed1.conv.{index + 1}", stem)
    befores = (stem, *widths[:3])
    for s, (C, before, depth, ratio) in enumerate(
        zip(widths, befores, depths, ratios, strict=True)
    ):
        shapes |= biased(f"patch_embed{s + 1}.proj", (C, before, 3, 3))
        shapes |= biased(f"patch_embed{s + 1}.norm", (C,)) | biased(f"norm{s + 1}", (C,))
        for block in range(depth):
            start = f"block{s + 1}.{block}"
            shapes |= _grouped(start, C) | biased(f"{start}.mlp.fc1", (ratio * C, C))
            shapes |= biased(f"{start}.mlp.dwconv.dwconv", (ratio * C, 1, 3, 3))
            shapes |= biased(f"{start}.mlp.fc2", (C, ratio * C))
    C, start = widths[-1], "post_network.0"
    shapes |= _grouped(start, C) | biased(f"{start}.norm1", (C,))
    shapes |= biased(f"{start}.mlp.fc1", (ratios[-1] * C, C))
    shapes |= biased(f"{start}.mlp.fc2", (C, ratios[-1] * C))
    return shapes | biased("head", (1000, C)) | biased("dist_head", (1000, C))


def _grouped(start, C):
    shapes = {
        **biased(f"{start}.norm2", (C,)),
        f"{start}.attn.skip_scale": (1,),
        **biased(f"{start}.attn.fc1", (C // 16, C)),
        **biased(f"{start}.attn.fc2", (C, C // 16)),
        **biased(f"{start}.attn.norm", (C,)),
        **biased(f"{start}.attn.proj", (C, C)),
    }
    for group in range(1, 5):
        shapes |= _scanned(f"{start}.attn.mamba_g{group}", C // 4, C // 4, 1, 1, True)
    return shapes


# PlainMamba: width, depth, 3x3 convolutions of the tokeniser, whether a layer has a local one.
PLAINMAMBA = {
    "plainmamba_l1": (192, 24, 1, True),
    "plainmamba_l2": (384, 24, 2, False),
    "plainmamba_l3": (448, 36, 2, False),
}


def plainmamba(name):
    """Return the shapes of a published file of PlainMamba by key (specification 3.5)."""
    return plainmamba_of(*PLAINMAMBA[name])


def plainmamba_of(C, depth, num_convs, has_local, *, grid=14, states=16):
    """Return the shapes of any PlainMamba by key."""
    D, R = 2 * C, -(-C // 16)
    shapes = {"backbone.pos_embed": (1, grid**2, C)}
    convs = {"stem.0": (64, 3, 7, 7)} | {f"convs.{3 * i}": (64, 64, 3, 3) for i in range(num_convs)}
    for conv, shape in convs.items():
        part, index = conv.split(".")
        shapes[f"backbone.patch_embed.{conv}.weight"] = shape
        shapes |= batch_norm(f"backbone.patch_embed.{part}.{int(index) + 1}", 64)
    shapes |= biased("backbone.patch_embed.projection", (C, 64, 8, 8))
    for layer in range(depth):
        start = f"backbone.layers.{layer}"
        shapes |= {
            **biased(f"{start}.norm", (C,)),
            **biased(f"{start}.mamba.in_proj", (2 * D, C)),
            **biased(f"{start}.mamba.conv2d", (D, 1, 7, 7)),
            f"{start}.mamba.x_proj.weight": (R + 2 * states, D),
            **biased(f"{start}.mamba.dt_proj", (D, R)),
            f"{start}.mamba.A_log": (D, states),
            f"{start}.mamba.D": (D,),
            f"{start}.mamba.direction_Bs": (5, states),
            **biased(f"{start}.mamba.out_proj", (C, D)),
        }
    if has_local:
        shapes |= {"backbone.layers.0.dw.0.weight": (C, 1, 3, 3)}
        shapes |= batch_norm("backbone.layers.0.dw.1", C)
    return shapes | biased("backbone.ln1", (C,)) | biased("head.fc", (1000, C))
