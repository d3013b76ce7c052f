"""The reference is the recurrence: it meets closed forms and finite differences."""

import torch

from cvmh.ops import order_table, selective_scan


def test_constant_input_gives_a_geometric_sum():
    length, step, rate = 12, 0.3, -0.7
    ones = torch.ones(1, 1, length, 1, dtype=torch.float64)
    y = selective_scan(
        ones[:, 0], step * ones, rate * ones[0, :, :1], ones, ones, backend="reference"
    )
    decay = torch.exp(torch.tensor(step * rate, dtype=torch.float64))
    count = torch.arange(1, length + 1)
    assert torch.allclose(y[0, :, 0], step * (1 - decay**count) / (1 - decay), rtol=1e-14)


def test_output_is_the_sum_of_all_earlier_inputs_each_decayed(make_scan):
    arguments = make_scan(3, 4, B=1, paths="single", gaps=True, dtype=torch.float64)
    x, dt, A, B, C, D = (arguments[name][0] for name in ("x", "dt", "A", "B", "C", "D"))
    step = dt[0] + arguments["gap"][0, :, None] * arguments["gap_dt"][0]
    expected = D * x
    for to in range(12):
        for since in range(to + 1):
            exponent = step[since + 1 : to + 1].sum(dim=0)[:, None] * A
            weight = (C[0, to] * B[0, since] * exponent.exp()).sum(dim=1)
            expected[to] += weight * dt[0, since] * x[since]
    y = selective_scan(**arguments, backend="reference")
    assert torch.allclose(y[0], expected, rtol=1e-12, atol=1e-14)


def test_reversed_path_is_the_scan_of_the_reversed_map(make_scan):
    arguments = make_scan(3, 4, paths="single", dtype=torch.float64)
    flipped = {name: arguments[name].flip(-2) for name in ("x", "dt", "B", "C")}
    backwards = selective_scan(
        **arguments | {"order": arguments["order"].flip(-1)}, backend="reference"
    )
    expected = selective_scan(**arguments | flipped, backend="reference").flip(-2)
    assert torch.allclose(backwards, expected, rtol=1e-13)


def test_pixels_that_no_path_visits_are_zero(make_scan):
    order = order_table("ss2d", 5, 7)[:, :10]
    arguments = make_scan(order=order)
    y = selective_scan(**arguments, merge=False, backend="reference")
    for path in range(4):
        visited = torch.zeros(35, dtype=torch.bool)
        visited[order[path].long()] = True
        assert (y[:, path, ~visited] == 0).all() and (y[:, path, visited] != 0).all()


def test_gradients_pass_gradcheck(make_scan):
    order = order_table("ss2d", 2, 3).clone()
    order[1, 3] = -1
    arguments = make_scan(
        *(2, 3), B=1, D=2, rank=1, softplus=True, gaps=True, order=order, dtype=torch.float64
    )
    names = ["x", "dt", "A", "B", "C", "D", "dt_bias", "dt_weight", "gap_dt"]

    def scan(*values):
        given = dict(zip(names, values, strict=True))
        return selective_scan(**arguments | given, backend="reference", merge=False)

    assert torch.autograd.gradcheck(scan, [arguments[name].requires_grad_() for name in names])
