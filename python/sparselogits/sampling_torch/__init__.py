"""The draws of `sparselogits.sample` in torch and Triton, bit for bit those of the C++ core.

`rows` takes tensors; `tiles` (pure torch) and `triton_tiles` (kernels in `triton_kernels`) make
plain draws, `proposal` those with importance weights, `shards` those of a part of the vocabulary.
"""
