"""Sixteen floats as one value of numba, and bare memory: what the scan kernels are written in.

Loops over channels are written in these vectors, so that no compiler has to find out that they
could be; LLVM maps their lanes to the registers that a processor has. Addresses are integers, and
an index counts elements of its own size. NaN and Inf are kept: the only liberty that LLVM is
given is to fuse a product and a sum.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import ConcreteTemplate, builtin_registry, signature
from numba.extending import lower_builtin, models, register_model

from cvmh.ops._numba_sizes import LANES

FLOAT, INT, LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)
FLOATS, INTS = ir.VectorType(FLOAT, LANES), ir.VectorType(INT, LANES)
MASK = ir.VectorType(ir.IntType(1), LANES)

LOG2_E = 1.4426950408889634
# LOG2_E as a float32, and what that leaves.
LOG2_E_HIGH = 1.44269502162933349609375
LOG2_E_LOW = LOG2_E - LOG2_E_HIGH
# 2^f = 1 + f Q(f) for |f| <= 1/2: the error vanishes with f, so that slow decays stay unbiased.
# Minimax fit of Q to (2^f - 1) / f within 8e-9.
EXP2 = (0.693147188, 0.2402265108, 0.05550357105, 0.009618030785, 0.001339086686, 1.546973046e-4)
# log(1 + e) = s (2 + w P(w)) with s = e / (2 + e) and w = s s <= 1/9. Minimax fit of P, 3e-7.
LOG1P = (0.6666663898, 0.4000778236, 0.2823127989, 0.2688360633)
# Added to a float it leaves the nearest whole number in the lowest bits.
SHIFTER = 1.5 * 2**23


class VectorType(types.Type):
    """The type of LANES floats."""

    def __init__(self) -> None:
        super().__init__(name=f"floats{LANES}")


vector = VectorType()


@register_model(VectorType)
class VectorModel(models.PrimitiveModel):
    """Holds LANES floats as LLVM's own vector."""

    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, FLOATS)


def _emits(
    key: Any,
    result: types.Type,
    *arguments: types.Type,
    on_avx512: Callable[..., Any] | None = None,
) -> Callable[[Any], Any]:
    """Let kernels call ``key``; the decorated function emits its instructions.

    Where the machine has AVX-512, ``on_avx512`` does, if there is one.
    """

    def decorate(emit: Callable[..., Any]) -> Any:
        cases = [signature(result, *arguments)]
        template = type("Template", (ConcreteTemplate,), {"key": key, "cases": cases})
        builtin_registry.register_global(key, types.Function(template))

        @lower_builtin(key, *arguments)
        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            use = on_avx512 if on_avx512 and _has_avx512(context) else emit
            value = use(builder, *args)
            return context.get_dummy_value() if result is types.void else value

        return key

    return decorate


def _define(result: types.Type, *arguments: types.Type, **others: Any) -> Callable[[Any], Any]:
    """Make a function that kernels can call of one that emits its instructions."""
    return lambda emit: _emits(emit, result, *arguments, **others)(emit)


def _has_avx512(context: Any) -> bool:
    """Return whether code is made for a processor with AVX-512 on sixteen floats."""
    # What numba makes code for, which need not be what the machine is.
    features = context.codegen().magic_tuple()[2].split(",")
    return LANES == 16 and {"+avx512f", "+avx512dq"} <= set(features)


def _all(value: float) -> ir.Constant:
    return ir.Constant(FLOATS, [value] * LANES)


def _bits(value: int) -> ir.Constant:
    return ir.Constant(INT, value)


def _add(builder: Any, a: Any, b: Any) -> Any:
    return builder.fadd(a, b, flags=("contract",))


def _multiply(builder: Any, a: Any, b: Any) -> Any:
    return builder.fmul(a, b, flags=("contract",))


_emits(operator.add, vector, vector, vector)(_add)
_emits(operator.mul, vector, vector, vector)(_multiply)


def _element(builder: Any, address: Any, index: Any, kind: ir.Type) -> Any:
    return builder.gep(builder.inttoptr(address, kind.as_pointer()), [index])


def _floats_at(builder: Any, address: Any, index: Any) -> Any:
    return builder.bitcast(_element(builder, address, index, FLOAT), FLOATS.as_pointer())


@_define(vector, types.int64, types.int64)
def load_vector(builder: Any, address: Any, index: Any) -> Any:
    """Return the floats from element ``index`` on."""
    return builder.load(_floats_at(builder, address, index), align=4)


@_define(types.void, types.int64, types.int64, vector)
def store_vector(builder: Any, address: Any, index: Any, value: Any) -> Any:
    """Write floats from element ``index`` on."""
    builder.store(value, _floats_at(builder, address, index), align=4)


@_define(vector, types.int64, types.int64, types.int64)
def load_lanes(builder: Any, address: Any, index: Any, count: Any) -> Any:
    """Return the floats from element ``index`` on, no more than ``count``, the others zero."""
    pointer = _floats_at(builder, address, index)
    with builder.if_else(_is_whole(builder, count), likely=True) as (then, otherwise):
        with then:
            whole, then_block = builder.load(pointer, align=4), builder.block
        with otherwise:
            part = _call_masked(
                builder, "load", FLOATS, pointer, _bits(4), _mask(builder, count), _all(0)
            )
            otherwise_block = builder.block
    result = builder.phi(FLOATS)
    result.add_incoming(whole, then_block)
    result.add_incoming(part, otherwise_block)
    return result


@_define(types.void, types.int64, types.int64, types.int64, vector)
def store_lanes(builder: Any, address: Any, index: Any, count: Any, value: Any) -> Any:
    """Write floats from element ``index`` on, no more than ``count``."""
    pointer = _floats_at(builder, address, index)
    with builder.if_else(_is_whole(builder, count), likely=True) as (then, otherwise):
        with then:
            builder.store(value, pointer, align=4)
        with otherwise:
            mask = _mask(builder, count)
            _call_masked(builder, "store", ir.VoidType(), value, pointer, _bits(4), mask)


def _is_whole(builder: Any, count: Any) -> Any:
    return builder.icmp_signed(">=", count, ir.Constant(LONG, LANES))


def _mask(builder: Any, count: Any) -> Any:
    """Return which lanes are below a count."""
    return builder.icmp_signed(
        "<", ir.Constant(INTS, list(range(LANES))), _spread(builder, builder.trunc(count, INT))
    )


def _call_masked(builder: Any, name: str, result: ir.Type, *args: Any) -> Any:
    """Call LLVM's load or store of some lanes; their operands are (pointer, alignment, mask)."""
    kind = ir.FunctionType(result, [arg.type for arg in args])
    function = f"llvm.masked.{name}.v{LANES}f32.p0"
    return builder.call(builder.module.declare_intrinsic(function, fnty=kind), args)


@_define(types.void, types.int64, types.int64)
def prefetch(builder: Any, address: Any, index: Any) -> Any:
    """Call the memory around an element into the cache; any address will do."""
    args = [_element(builder, address, index, FLOAT), _bits(0), _bits(3), _bits(1)]
    kind = ir.FunctionType(ir.VoidType(), [arg.type for arg in args])
    builder.call(builder.module.declare_intrinsic("llvm.prefetch.p0", fnty=kind), args)


@_define(types.float32, types.int64, types.int64)
def load_float(builder: Any, address: Any, index: Any) -> Any:
    """Return one float."""
    return builder.load(_element(builder, address, index, FLOAT))


@_define(types.void, types.int64, types.int64, types.float32)
def store_float(builder: Any, address: Any, index: Any, value: Any) -> Any:
    """Write one float."""
    builder.store(value, _element(builder, address, index, FLOAT))


@_define(types.int64, types.int64, types.int64)
def load_int(builder: Any, address: Any, index: Any) -> Any:
    """Return one integer of 32 bits, widened."""
    return builder.sext(builder.load(_element(builder, address, index, INT)), LONG)


@_define(types.int64, types.int64, types.int64)
def take_ticket(builder: Any, address: Any, index: Any) -> Any:
    """Return one integer of 64 bits and count it up, which no other thread can come between."""
    one = ir.Constant(LONG, 1)
    return builder.atomic_rmw("add", _element(builder, address, index, LONG), one, "monotonic")


@_define(vector, types.float32)
def fill(builder: Any, value: Any) -> Any:
    """Return the same float in all lanes."""
    return _spread(builder, value)


def _spread(builder: Any, value: Any) -> Any:
    """Return a vector with the same value in all lanes."""
    nothing = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
    single = builder.insert_element(nothing, value, _bits(0))
    return builder.shuffle_vector(single, single, ir.Constant(INTS, [0] * LANES))


@_define(vector, vector, vector)
def higher(builder: Any, a: Any, b: Any) -> Any:
    """Return the higher of two floats in each lane, the second unless both are numbers."""
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


@_define(vector, vector, vector)
def lower(builder: Any, a: Any, b: Any) -> Any:
    """Return the lower of two floats in each lane, the second unless both are numbers."""
    return builder.select(builder.fcmp_ordered("<", a, b), a, b)


@_define(types.float32, vector)
def sum_lanes(builder: Any, value: Any) -> Any:
    """Return the sum of all lanes."""
    half = LANES
    while half > 1:
        half //= 2
        lanes = ir.Constant(INTS, [(lane + half) % LANES for lane in range(LANES)])
        value = builder.fadd(value, builder.shuffle_vector(value, value, lanes))
    return builder.extract_element(value, _bits(0))


def _call(builder: Any, name: str, *args: Any) -> Any:
    """Call a function on vectors that LLVM has built in."""
    kind = ir.FunctionType(FLOATS, [FLOATS] * len(args))
    name = f"llvm.{name}.v{LANES}f32"
    return builder.call(builder.module.declare_intrinsic(name, fnty=kind), args)


def _fuse(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a b + c, rounded once where the processor can."""
    return _call(builder, "fmuladd", a, b, c)


def _polynomial(builder: Any, x: Any, coefficients: tuple[float, ...]) -> Any:
    *lower, result = map(_all, coefficients)
    for coefficient in reversed(lower):
        result = _fuse(builder, result, x, coefficient)
    return result


def _power_of_two(builder: Any, shifted: Any, rest: Any) -> Any:
    """Return 2^(n + rest), n being the lowest bits of ``shifted``."""
    exponent = builder.shl(builder.bitcast(shifted, INTS), ir.Constant(INTS, [23] * LANES))
    bits = builder.add(exponent, ir.Constant(INTS, [127 << 23] * LANES))
    scale = builder.bitcast(bits, FLOATS)
    excess = builder.fmul(rest, _polynomial(builder, rest, EXP2))
    return _fuse(builder, scale, excess, scale)


def _nearest(builder: Any, x: Any) -> tuple[Any, Any]:
    """Return the nearest whole number, as a float and as the lowest bits of another."""
    shifted = builder.fadd(x, _all(SHIFTER))
    return builder.fsub(shifted, _all(SHIFTER)), shifted


def _exp2_on_avx512(builder: Any, x: Any) -> Any:
    """As exp2, by the two instructions that take a float apart and scale one, without clamping."""
    every, current = ir.Constant(ir.IntType(16), -1), _bits(4)
    rest = _call_avx512(builder, "reduce", x, _bits(0), _all(0), every, current)
    result = _fuse(builder, rest, _polynomial(builder, rest, EXP2), _all(1))
    whole = builder.fsub(x, rest)
    return _call_avx512(builder, "scalef", result, whole, _all(0), every, current)


def _call_avx512(builder: Any, name: str, *args: Any) -> Any:
    kind = ir.FunctionType(FLOATS, [arg.type for arg in args])
    function = f"llvm.x86.avx512.mask.{name}.ps.512"
    return builder.call(builder.module.declare_intrinsic(function, fnty=kind), args)


@_define(vector, vector, on_avx512=_exp2_on_avx512)
def exp2(builder: Any, x: Any) -> Any:
    """Return 2^x: zero below some 2^-126, not finite above some 2^127."""
    # The bits of 2^-127, made as those of the others are, happen to be those of zero.
    x = builder.select(builder.fcmp_ordered("<", x, _all(-127)), _all(-127), x)
    x = builder.select(builder.fcmp_ordered(">", x, _all(128)), _all(128), x)
    whole, shifted = _nearest(builder, x)
    return _power_of_two(builder, shifted, builder.fsub(x, whole))


def _exp_of_minus_size(builder: Any, x: Any) -> Any:
    """Return exp(-|x|) to the last bit but one."""
    size = _call(builder, "fabs", x)
    size = builder.select(builder.fcmp_ordered(">", size, _all(87)), _all(87), size)
    whole, shifted = _nearest(builder, builder.fmul(size, _all(-LOG2_E)))
    # The product is taken apart: its rounding error would grow with the size.
    rest = _fuse(builder, size, _all(-LOG2_E_HIGH), builder.fneg(whole))
    rest = _fuse(builder, size, _all(-LOG2_E_LOW), rest)
    return _power_of_two(builder, shifted, rest)


@_define(vector, vector)
def softplus(builder: Any, x: Any) -> Any:
    """Return log(1 + exp(x))."""
    small = _exp_of_minus_size(builder, x)
    s = builder.fdiv(small, builder.fadd(small, _all(2)))
    w = builder.fmul(s, s)
    inner = _fuse(builder, w, _polynomial(builder, w, LOG1P), _all(2))
    positive = builder.select(builder.fcmp_ordered(">", x, _all(0)), x, _all(0))
    return _fuse(builder, s, inner, positive)


@_define(vector, vector)
def softplus_slope(builder: Any, x: Any) -> Any:
    """Return the derivative of softplus, 1 / (1 + exp(-x))."""
    small = _exp_of_minus_size(builder, x)
    top = builder.select(builder.fcmp_ordered(">", x, _all(0)), _all(1), small)
    return builder.fdiv(top, builder.fadd(small, _all(1)))
