"""What this machine can do that changes the answers or the speed of a network."""

from contextlib import suppress
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""

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


def keep_memory() -> None:
    """Let the C library keep what this process frees for what it asks for next; only glibc can be told.

    Otherwise it gives tensors of more than 32 MB back to the system and takes fresh pages for the next ones, each of
    which the system clears first: a fifth of the time of a network on 4 images of 800 x 1067 pixels. Kept memory comes
    in pieces that do not always fit: 5 to 30 % more of it were in use there. For commands that only look at images: a
    training, whose batches are of one size, gains a thirtieth by it for half as much memory again.
    """
    import ctypes

    with suppress(AttributeError, OSError, TypeError):  # Windows has no name for the program itself
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
