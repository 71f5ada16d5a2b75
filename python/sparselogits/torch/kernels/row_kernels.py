"""The rows of the losses as Triton kernels: one program has one row.

The target logits are read before anything is written, since the gradient may take the place of the
logits. Elements at targets are written last, from float32.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

import triton
import triton.language as tl


@triton.jit
def scaled_logits(address, stride, columns, width, temperature, SCALED: tl.constexpr):
    """float32 logits / temperature; -inf beyond the row."""
    z = tl.load(address + columns.to(tl.int64) * stride, mask=columns < width, other=-float("inf"))
    z = z.to(tl.float32)
    return z / temperature if SCALED else z


@triton.jit
def loss_and_gradient(
    logits,
    row_stride,
    column_stride,
    width,
    keep,
    total,
    bounds,
    token_ids,
    weights,
    temperature,
    loss_scale,
    gradient_scale,
    losses,
    entry_gradient,
    gradient,
    gradient_row_stride,
    gradient_column_stride,
    SCALED: tl.constexpr,
    WITH_GRADIENT: tl.constexpr,
    COLUMNS: tl.constexpr,
    ENTRIES: tl.constexpr,
):
    """COLUMNS logits and ENTRIES targets at a time; `entry_gradient` is scratch."""
    row = tl.program_id(0).to(tl.int64)
    z_row = logits + row * row_stride
    out_row = gradient + row * gradient_row_stride
    if tl.load(keep + row):
        largest = float("-inf")
        sums = tl.zeros([COLUMNS], tl.float32)
        for start in range(0, width, COLUMNS):
            columns = start + tl.arange(0, COLUMNS)
            z = scaled_logits(z_row, column_stride, columns, width, temperature, SCALED)
            new_largest = tl.maximum(largest, tl.max(z, axis=0))
            # Of logits that are all -inf so far: inf - inf would be NaN.
            reference = tl.where(new_largest == float("-inf"), 0.0, new_largest)
            sums = sums * tl.exp(largest - reference) + tl.exp(z - reference)
            largest = new_largest
        denominator = tl.sum(sums, axis=0)
        log_denominator = tl.log(denominator)
        weight_sum = tl.load(total + row)
        scale = tl.load(gradient_scale)
        first = tl.load(bounds + row)
        last = tl.load(bounds + row + 1)
        loss = tl.zeros([ENTRIES], tl.float32)
        for entry in range(first, last, ENTRIES):
            entries = entry + tl.arange(0, ENTRIES)
            there = entries < last
            # Places beyond the row's entries read its first column and count for nothing.
            ids = tl.load(token_ids + entries, mask=there, other=0)
            w = tl.load(weights + entries, mask=there, other=0.0)
            z = scaled_logits(z_row, column_stride, ids, width, temperature, SCALED)
            # A weight of 0 asks for nothing, where 0 · inf would be NaN.
            loss += tl.where(w > 0, w * ((largest - z) + log_denominator), 0.0)
            if WITH_GRADIENT:
                p = tl.exp(z - largest) / denominator
                tl.store(entry_gradient + entries, scale * (weight_sum * p - w), mask=there)
        tl.store(losses + row, tl.sum(loss, axis=0) * loss_scale)
        if WITH_GRADIENT:
            coefficient = scale * weight_sum / denominator
            tl.debug_barrier()  # every logit at a target was read
            for start in range(0, width, COLUMNS):
                columns = start + tl.arange(0, COLUMNS)
                z = scaled_logits(z_row, column_stride, columns, width, temperature, SCALED)
                g = (coefficient * tl.exp(z - largest)).to(gradient.dtype.element_ty)
                place = out_row + columns.to(tl.int64) * gradient_column_stride
                tl.store(place, g, mask=columns < width)
            tl.debug_barrier()  # the softmax is written before its elements at targets are replaced
            for entry in range(first, last, ENTRIES):
                entries = entry + tl.arange(0, ENTRIES)
                there = entries < last
                ids = tl.load(token_ids + entries, mask=there, other=0)
                g = tl.load(entry_gradient + entries, mask=there, other=0.0)
                place = out_row + ids.to(tl.int64) * gradient_column_stride
                tl.store(place, g.to(gradient.dtype.element_ty), mask=there)
    else:
        # Not 0 · softmax: an ignored row may hold NaN.
        tl.store(losses + row, 0.0)
        if WITH_GRADIENT:
            zeros = tl.zeros([COLUMNS], gradient.dtype.element_ty)
            for start in range(0, width, COLUMNS):
                columns = start + tl.arange(0, COLUMNS)
                place = out_row + columns.to(tl.int64) * gradient_column_stride
                tl.store(place, zeros, mask=columns < width)
