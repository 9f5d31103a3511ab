"""FocalCodec: a speech codec (Della Libera et al., 2502.04465), and its version for streams (2509.16195)."""

from collections.abc import Mapping
from typing import Any

from focalnet.inputs.audio import Audio
from focalnet.models.family import Family, On


def _network(bits: int, *down: int, causal: bool = False) -> Mapping[str, Any]:
    return {"bits": bits, "causal": causal, "down": [*down], "up": [*down[::-1]]}


NETWORKS = {
    "50hz": _network(13, 1, 1, 1),
    "25hz": _network(13, 2, 1, 1),
    "12_5hz": _network(13, 2, 2, 1),
    "50hz_2k_causal": _network(11, 1, 1, 1, causal=True),
    "50hz_4k_causal": _network(12, 1, 1, 1, causal=True),
    "50hz_65k_causal": _network(16, 1, 1, 1, causal=True),
    "small": _network(13, 1, 1),
}
"""Endings of names, and what they say: 2 ** bits tokens, and how many frames of 20 ms one stands for."""

CAUSAL = On(
    variants=".*_causal",
    options={
        "compressor": {"dims": [1024] * 3, "focal_window": 14, "focal_factor": 4},
        "decompressor": {"dims": [1024] * 3, "focal_window": 14, "focal_factor": 4, "lookahead": 3},
        "decoder": {"kind": "wavenext", "dim": 1024, "ffn_dim": 2048, "hop": 480},
    },
)
SMALL = On(
    variants="small",
    options={
        "encoder": {"kind": "mel", "dim": 80},
        "compressor": {"dims": [96, 64]},
        "decompressor": {"dims": [64, 96]},
        "decoder": {"dim": 128, "layers": 4, "ffn_dim": 384},
    },
)
"""Of our own: learns on a CPU in minutes."""

FAMILY = Family(
    name="focalcodec",
    model="focalnet.models.focalcodec.model:FocalCodec",
    layouts="focalnet.models.focalcodec.layouts:LAYOUTS",
    title="FocalCodec",
    purpose="coding of speech",
    pipeline="audio-to-audio",
    outputs="tokens, latents, features, quantized, wave",
    learns="signal",
    tasks=("codec",),
    export="none",
    networks=NETWORKS,
    num_classes=0,
    least_classes=0,
    preprocessing=Audio(waveform=True),
    on=(CAUSAL, SMALL),
    published=dict.fromkeys(f"focalcodec_{name}" for name in NETWORKS if name != "small"),
)
