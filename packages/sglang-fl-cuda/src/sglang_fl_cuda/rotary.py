"""Rotary position embedding, in place, by the kernel that SGLang takes for the size of the heads.

For the sizes of most models it reads cos and sin in float32 and computes in it. For the others SGLang has one that
does both in the dtype of query, less precisely than the op's contract wants: it serves SGLang's own layers alone, so
that their tokens are those of SGLang.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.compiler import is_compiling

from sglang_fl.records import Answer
from sglang_fl_cuda.attributes import buffer
from sglang_fl_cuda.kernels import rotaries
from sglang_fl_cuda.observers import ops_are_seen

_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_FLOAT32_HEADS = frozenset((64, 128, 256, 512))
_KNOWN = "_sglang_fl_cuda_tables"
"""Under which name a layer is given to keep its cos, sin and cache that are known to fit together, and their width."""
_NOTHING = (None, None, None, 0)

_KERNELS = rotaries()
_rotate, _rotate_in_dtype, _launcher = _KERNELS


def accepts(
    obj: Any,
    query: torch.Tensor,
    key: torch.Tensor | None,
    cos: torch.Tensor,
    sin: torch.Tensor,
    position_ids: torch.Tensor,
    rotary_interleaved: bool = False,
    inplace: bool = True,
) -> Answer:
    """Query and key on CUDA, laid out alike, and the layer's own cos and sin."""
    dtype, cache = query.dtype, buffer(obj, "cos_sin_cache")
    if key is None:
        return "there is no key, and the kernel rotates both"
    if not query.is_cuda:
        return f"query is on {query.device}, which is no CUDA device"
    if dtype not in _DTYPES or key.dtype is not dtype:
        return f"query is in {dtype} and key in {key.dtype}, and the kernel takes one of half precision and float32"
    known_cos, known_sin, known_cache, width = getattr(obj, _KNOWN, _NOTHING)
    if known_cos is not cos or known_sin is not sin or known_cache is not cache:
        width = query.shape[2]
        if not _are_halves(cos, sin, cache, width):
            return "cos and sin are not the halves of the layer's cos_sin_cache, or not where the kernel can read it"
        _remember(obj, cos, sin, cache, width)
    return _accepts_layout(obj, query, key, cache, width)


def rotary_embedding(
    obj: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    position_ids: torch.Tensor,
    rotary_interleaved: bool = False,
    inplace: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotates query ``[T, H, R]`` and key ``[T, K, R]`` by position, and returns them, or copies of them.

    The kernels read ``obj.cos_sin_cache``, whose halves cos and sin are; position_ids ``[T]``.
    """
    if not inplace:
        query, key = (tensor.clone(memory_format=torch.contiguous_format) for tensor in (query, key))
    if query.numel() == 0:
        return query, key
    cache = buffer(obj, "cos_sin_cache")
    positions = (position_ids if position_ids.dtype is torch.int64 else position_ids.to(torch.int64)).contiguous()
    if obj.head_size in _FLOAT32_HEADS:
        if _launcher is None or ops_are_seen():
            _rotate(query, key, cache, positions, is_neox=not rotary_interleaved)
        else:
            launch = _launcher(not rotary_interleaved, query.shape[2], key.dtype, query.dtype)
            launch(query, key, cache, positions)
    else:
        if cache.dtype is not query.dtype:  # SGLang, too, has its layer keep it so
            obj.cos_sin_cache = cache = cache.to(query.dtype)
        _rotate_in_dtype(positions, query, key, query.shape[2], cache, not rotary_interleaved)
    return query, key


def _are_halves(cos: torch.Tensor, sin: torch.Tensor, cache: torch.Tensor, width: int) -> bool:
    if cos.stride() != (width, 1) or sin.stride() != (width, 1):
        return False
    if is_compiling():  # compiled code cannot ask for an address: it tells other tables by their strides alone
        return True
    start: int = cache.data_ptr()
    return start % 16 == 0 and (cos.data_ptr(), sin.data_ptr()) == (start, start + width // 2 * cos.itemsize)


def _remember(obj: Any, *tables: Any) -> None:
    """So that they are compared once: it takes as long as all else that is asked of a call."""
    if not is_compiling() and hasattr(obj, "__dict__"):
        vars(obj)[_KNOWN] = tables  # not by setattr, which in a module takes its time


def _accepts_layout(obj: Any, query: torch.Tensor, key: torch.Tensor, cache: torch.Tensor, width: int) -> Answer:
    token, head, element = query.stride()
    key_token, key_head, key_element = key.stride()
    if key.shape[1] == 1:  # there is no next head
        key_head = head
    if head != key_head or element != 1 or key_element != 1 or token < width or key_token < width or head < width:
        return f"query and key of strides {query.stride()} and {key.stride()} are not laid out alike, or overlap"
    if obj.head_size not in _FLOAT32_HEADS:
        return _accepts_in_dtype(obj, query, key, cache)
    if cache.dtype is not torch.float32:
        return f"cos_sin_cache is in {cache.dtype}, and the kernel for heads of {obj.head_size} reads float32"
    uneven = (token | key_token | head | width) & 7  # 8 values in half precision are the 16 bytes that are read at once
    if uneven or (not is_compiling() and (query.data_ptr() | key.data_ptr()) & 15):
        return "a head of query or key does not start at, or span, a multiple of 16 bytes"
    return True


def _accepts_in_dtype(obj: Any, query: torch.Tensor, key: torch.Tensor, cache: torch.Tensor) -> Answer:
    if not getattr(obj, "use_fallback_kernel", False):
        return f"the kernel for heads of {obj.head_size} computes in {query.dtype}, as only SGLang's own layers want it"
    if query.shape[1] % key.shape[1] or query.shape[2] != cache.shape[1]:
        return f"query {tuple(query.shape)} does not go with key {tuple(key.shape)} and {cache.shape[1]} of cos and sin"
    if cache.dtype is not query.dtype and is_compiling():
        return f"cos_sin_cache is in {cache.dtype}, and compiled code cannot have the layer keep it in {query.dtype}"
    return True
