"""The sizes that the numba backend works in, known without importing numba."""

from cvmh.ops.arguments import ScanArguments

# Floats of a vector. A processor with narrower registers takes two or four for one.
LANES = 16
# Steps between two states that are kept for the backward pass; the buffers of a chunk shall stay
# in the cache, and with many states there are more of them.
CHUNK, CHUNK_OF_MANY_STATES, MANY_STATES = 128, 64, 8


def chunk_size(num_states: int) -> int:
    """Return the steps of a chunk."""
    return CHUNK if num_states < MANY_STATES else CHUNK_OF_MANY_STATES


def count_states(arguments: ScanArguments) -> int:
    """Return how many floats the states before all chunks take."""
    num_paths, num_channels, num_states = arguments.A.shape
    num_chunks = -(-arguments.num_steps // chunk_size(num_states))
    lanes = -(-num_channels // LANES) * LANES
    return arguments.x.shape[0] * num_paths * num_chunks * num_states * lanes
