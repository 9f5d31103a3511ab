"""What the processor of this machine can do that changes the answers or the speed of a network."""

from functools import cache

ABILITIES = {
    "avx2": "AVX2",
    "avx512_f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "amx_int8": "AMX int8",
    "amx_bf16": "AMX bf16",
    "neon": "NEON",
    "dot": "dot product",
    "i8mm": "int8 matrix product",
    "bf16": "bf16",
    "sve": "SVE",
}
"""Torch's names -> ours, x86 and ARM: wide registers, products of int8 that do not saturate, of bfloat16."""


@cache
def abilities() -> tuple[str, ...]:
    """Those of `ABILITIES` that this processor has; empty where torch is too old to tell."""
    import torch

    found = getattr(torch.cpu, "get_capabilities", dict)()
    return tuple(words for name, words in ABILITIES.items() if found.get(name))


def multiplies_bfloat16() -> bool:
    """Whether this processor multiplies matrices of bfloat16, or torch is too old to tell."""
    return not abilities() or any("bf16" in words.lower() for words in abilities())
