"""A quantised GGUF file of the Llama family as a plain float32 Hugging Face model.

transformers can load GGUF too, but wants `accelerate` for it and has renamed the way twice; the
mapping is small, and this one takes three seconds. Tested bit for bit against transformers 5.23.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparselogits.errors import UnsupportedError

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTER_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}


def load_llama(path: Path) -> LlamaForCausalLM:
    """Reads a GGUF file of architecture "llama" and dequantises it.

    Raises:
        UnsupportedError: Another architecture, or a tensor that a Llama has no place for.
    """
    import gguf
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    reader = gguf.GGUFReader(path)
    architecture = bytes(_field(reader, "general.architecture", whole=True)).decode()
    if architecture != "llama":
        raise UnsupportedError(f"architecture {architecture!r}, not 'llama'", path=str(path))
    tensors = {t.name: t for t in reader.tensors}
    heads = int(_field(reader, "llama.attention.head_count"))
    key_heads = int(_field(reader, "llama.attention.head_count_kv"))
    fields: dict[str, Any] = {
        "vocab_size": int(tensors["token_embd.weight"].shape[1]),
        "hidden_size": int(_field(reader, "llama.embedding_length")),
        "intermediate_size": int(_field(reader, "llama.feed_forward_length")),
        "num_hidden_layers": int(_field(reader, "llama.block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "max_position_embeddings": int(_field(reader, "llama.context_length")),
        "rms_norm_eps": float(_field(reader, "llama.attention.layer_norm_rms_epsilon")),
        "rope_theta": float(_field(reader, "llama.rope.freq_base")),
        "tie_word_embeddings": "output.weight" not in tensors,
        "bos_token_id": int(_field(reader, "tokenizer.ggml.bos_token_id")),
        "eos_token_id": int(_field(reader, "tokenizer.ggml.eos_token_id")),
        "pad_token_id": int(_field(reader, "tokenizer.ggml.padding_token_id")),
    }
    config = LlamaConfig(**fields)
    rows_of_head = {"attn_q": heads, "attn_k": key_heads}
    state = {}
    for name, tensor in tensors.items():
        weight = gguf.dequantize(tensor.data, tensor.tensor_type)
        kind = name.split(".")[-2]
        if kind in rows_of_head:
            weight = _separate_halves(weight, rows_of_head[kind])
        state[_hugging_face_name(name, path)] = torch.from_numpy(weight.astype(np.float32))
    model = LlamaForCausalLM(config)
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or any(name != "lm_head.weight" for name in missing):
        raise UnsupportedError(f"missing {missing}, unexpected {unexpected}", path=str(path))
    model.tie_weights()
    return model


def _field(reader: Any, name: str, *, whole: bool = False) -> Any:
    """The value of a metadata field: its first element, or all of them (the bytes of a string)."""
    field = reader.fields[name]
    value = field.parts[field.data[0]]
    return value if whole else value[0]


def _hugging_face_name(name: str, path: Path) -> str:
    parts = name.split(".")
    if parts[0] == "blk" and len(parts) == 4 and parts[2] in _BLOCK_NAMES:
        return f"model.layers.{parts[1]}.{_BLOCK_NAMES[parts[2]]}.{parts[3]}"
    if len(parts) == 2 and parts[0] in _OUTER_NAMES:
        return f"{_OUTER_NAMES[parts[0]]}.{parts[1]}"
    raise UnsupportedError(f"tensor {name!r} has no place in a Llama", path=str(path))


def _separate_halves(weight: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Undoes GGUF's order of rotary rows: it stores pairs (i, i + d/2) side by side."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    separated: npt.NDArray[np.float32] = pairs.swapaxes(1, 2).reshape(rows, columns)
    return separated
