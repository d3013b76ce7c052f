"""How the released code of VMamba, which others grew from, names and shapes a selective scan."""

from torch import Tensor

from cvmh.models.weights.layout import Renames

# Dimensions of tensors whose first one holds the paths and what belongs to each of them.
JOINED = {"x_proj_weight": 2, "dt_weight": 2, "A_log": 2, "D": 1}


def scan_renames(published: str, ours: str) -> Renames:
    """Return the pairs of a layout for an SS2D.

    Args:
        published: pattern of what stands before its published names.
        ours: replacement of the same.
    """
    return (
        (
            published + r"(?P<part>in_proj|out_proj|out_norm)\.(?P<kind>\w+)",
            ours + r"\g<part>.\g<kind>",
        ),
        (published + r"conv2d\.(?P<kind>\w+)", ours + r"conv.\g<kind>"),
        (published + r"x_proj(_weight|\.weight)", ours + "x_proj_weight"),
        (published + r"dt_projs(_weight|\.weight)", ours + "dt_weight"),
        (published + r"dt_projs_bias", ours + "dt_bias"),
        (published + r"A_logs", ours + "A_log"),
        (published + r"Ds", ours + "D"),
    )


def reshape_scan(key: str, tensor: Tensor, *, num_paths: int) -> Tensor:
    """Give a published tensor under our key the shape that an SS2D of so many paths has it in."""
    name = key.rpartition(".")[-1]
    if tensor.ndim == JOINED.get(name) and len(tensor) % num_paths == 0:
        tensor = tensor.unflatten(0, (num_paths, -1))
    if name == "dt_weight" and tensor.ndim == 3:
        tensor = tensor.transpose(1, 2).contiguous()
    return tensor
