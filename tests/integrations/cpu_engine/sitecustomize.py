"""Python imports this in each process of the engine: the attention must be there in all of them."""

import torch_attention

__all__ = ["torch_attention"]
