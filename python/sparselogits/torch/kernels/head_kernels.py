"""Tiles of the logits of a linear head, which are used where they are computed: Triton kernels.

Both kernels compute a tile from its inputs with float32 sums; no logit is rounded to a narrower
dtype. Rows of tiles are numbered first, so that programs that run together read the same part of
the head's matrix.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

import triton
import triton.language as tl


@triton.jit
def capped_logits(
    x,
    x_row_stride,
    x_stride,
    weight,
    weight_row_stride,
    weight_stride,
    bias,
    softcap,
    rows,
    columns,
    num_rows,
    width,
    depth,
    HAS_BIAS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    INNER: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """softcap · tanh((x weightᵀ + bias) / softcap) of some rows and columns; float32."""
    inner = tl.arange(0, INNER)
    x_at = x + rows.to(tl.int64)[:, None] * x_row_stride
    weight_at = weight + columns.to(tl.int64)[None, :] * weight_row_stride
    z = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for start in range(0, depth, INNER):
        place = (start + inner).to(tl.int64)
        inside = place < depth
        a = tl.load(
            x_at + place[None, :] * x_stride,
            mask=(rows < num_rows)[:, None] & inside[None, :],
            other=0.0,
        )
        b = tl.load(
            weight_at + place[:, None] * weight_stride,
            mask=(columns < width)[None, :] & inside[:, None],
            other=0.0,
        )
        if WIDEN:
            a, b = a.to(tl.float32), b.to(tl.float32)
        z = tl.dot(a, b, z, input_precision="ieee")
    if HAS_BIAS:
        z += tl.load(bias + columns, mask=columns < width, other=0.0).to(tl.float32)[None, :]
    if HAS_SOFTCAP:
        # tanh by an exponential that cannot overflow.
        decay = tl.exp(-2.0 * tl.abs(z) / softcap)
        size = softcap * (1.0 - decay) / (1.0 + decay)
        z = tl.where(z < 0, -size, size)
    return z


@triton.jit
def partial_lse(
    x,
    x_row_stride,
    x_stride,
    weight,
    weight_row_stride,
    weight_stride,
    bias,
    temperature,
    softcap,
    num_rows,
    width,
    depth,
    tiles_per_part,
    partial,
    HAS_BIAS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """(parts, R): a program has ROWS rows of one part of the vocabulary, tile after tile."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    part = tl.program_id(1).to(tl.int64)
    largest = tl.full([ROWS], float("-inf"), tl.float32)
    sums = tl.zeros([ROWS], tl.float32)
    end = tl.minimum((part + 1) * tiles_per_part, tl.cdiv(width, COLUMNS))
    for tile in range(part * tiles_per_part, end):
        columns = tile * COLUMNS + tl.arange(0, COLUMNS)
        z = capped_logits(
            x,
            x_row_stride,
            x_stride,
            weight,
            weight_row_stride,
            weight_stride,
            bias,
            softcap,
            rows,
            columns,
            num_rows,
            width,
            depth,
            HAS_BIAS,
            HAS_SOFTCAP,
            INNER,
            WIDEN,
        )
        z = tl.where((columns < width)[None, :], z / temperature, float("-inf"))
        new_largest = tl.maximum(largest, tl.max(z, axis=1))
        # Of logits that are all -inf so far: inf - inf would be NaN.
        reference = tl.where(new_largest == float("-inf"), 0.0, new_largest)
        sums = sums * tl.exp(largest - reference) + tl.sum(tl.exp(z - reference[:, None]), axis=1)
        largest = new_largest
    tl.store(partial + part * num_rows + rows, largest + tl.log(sums), mask=rows < num_rows)


@triton.jit
def softmax_gradient(
    x,
    x_row_stride,
    x_stride,
    weight,
    weight_row_stride,
    weight_stride,
    bias,
    temperature,
    softcap,
    num_rows,
    width,
    depth,
    lse,
    coefficient,
    gradient,
    gradient_row_stride,
    HAS_BIAS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """coefficient · dlse/dz of one tile, for logits z before soft-cap and temperature."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    z = capped_logits(
        x,
        x_row_stride,
        x_stride,
        weight,
        weight_row_stride,
        weight_stride,
        bias,
        softcap,
        rows,
        columns,
        num_rows,
        width,
        depth,
        HAS_BIAS,
        HAS_SOFTCAP,
        INNER,
        WIDEN,
    )
    row_lse = tl.load(lse + rows, mask=rows < num_rows, other=0.0)
    factor = tl.load(coefficient + rows, mask=rows < num_rows, other=0.0) / temperature
    g = factor[:, None] * tl.exp(z / temperature - row_lse[:, None])
    if HAS_SOFTCAP:
        g *= 1.0 - (z / softcap) * (z / softcap)
    place = gradient + rows.to(tl.int64)[:, None] * gradient_row_stride + columns[None, :]
    there = (rows < num_rows)[:, None] & (columns < width)[None, :]
    tl.store(place, g.to(gradient.dtype.element_ty), mask=there)
