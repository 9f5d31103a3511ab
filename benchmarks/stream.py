"""How fast a stream is coded and decoded on one core, and whether its memory grows: random weights, noise, full width.

    python benchmarks/stream.py                                 ten minutes of sound, focalcodec_50hz_4k_causal
    python benchmarks/stream.py --seconds 60 --chunks 4         a minute, four chunks per call

Chunks of 80 ms go through `codec.stream()`, one or several per call; each call reads all weights, a gigabyte. `speed`
is seconds of sound per second of one core, for coding, decoding and both: a stream keeps pace with speech from 1 on.
`state_mb` is what the stream carries from chunk to chunk, the same all the time; `grown_mb` is what the process holds
at the end beyond what it held after its first 20 seconds. A row goes to `results/stream.jsonl`.
"""

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch.utils._pytree import tree_leaves

import focalnet
from focalnet.bench.measure import commit, device_name

RESULTS = Path(__file__).parent / "results" / "stream.jsonl"


def held() -> float:
    """What the process holds in memory, in megabytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="focalcodec_50hz_4k_causal")
    parser.add_argument("--seconds", type=float, default=600.0, help="of sound")
    parser.add_argument("--chunks", type=int, default=1, help="per call")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    codec = focalnet.create_model(args.model).eval()
    stream, step = codec.stream(), args.chunks * codec.chunk_size
    calls, warm = round(args.seconds * codec.sample_rate / step), round(20 * codec.sample_rate / step)
    spent, before, state = {"encode": 0.0, "decode": 0.0}, 0.0, 0.0
    for index in range(calls):
        chunk = 0.1 * torch.randn(1, step)
        began = time.process_time()
        tokens = stream.encode(chunk)
        between = time.process_time()
        stream.decode(tokens)
        spent["encode"] += between - began
        spent["decode"] += time.process_time() - between
        if index == min(warm, calls // 2):
            before = held()
            state = sum(tensor.nbytes for tensor in tree_leaves((stream.encoder_state, stream.decoder_state))) / 1e6
    kept = sum(tensor.nbytes for tensor in tree_leaves((stream.encoder_state, stream.decoder_state))) / 1e6
    assert kept == state, "the state of the stream grew"
    seconds = calls * step / codec.sample_rate
    row = {
        "model": args.model,
        "seconds": round(seconds, 2),
        "speed": {name: round(seconds / value, 3) for name, value in (spent | {"both": sum(spent.values())}).items()},
        "chunks": args.chunks,
        "ms_per_chunk": round(1000 * sum(spent.values()) / (calls * args.chunks), 1),
        "state_mb": round(state, 2),
        "held_mb": round(before),
        "grown_mb": round(held() - before, 1),
        "commit": commit(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "device": device_name("cpu"),
        "threads": 1,
    }
    print(json.dumps(row))
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
