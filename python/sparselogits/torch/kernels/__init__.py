"""Triton kernels of the losses. Modules named `*_triton` import them when they launch."""
