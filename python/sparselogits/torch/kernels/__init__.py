"""Triton kernels of the losses. Only modules whose names end in `_triton` import them, when they launch."""
