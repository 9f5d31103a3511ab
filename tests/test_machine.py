"""What is said of this machine's processor."""

import platform
import subprocess
import sys

import pytest

from focalnet import machine


@pytest.mark.parametrize(
    ("abilities", "multiplies"),
    [((), True), (("AVX2",), False), (("AVX2", "AVX-512 BF16"), True), (("AMX bf16",), True), (("NEON", "bf16"), True)],
)
def test_who_multiplies_in_bfloat16(monkeypatch, abilities, multiplies):
    monkeypatch.setattr(machine, "abilities", lambda: abilities)
    assert machine.multiplies_bfloat16() == multiplies


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize("kept", [True, False])
def test_freed_memory_is_kept(kept):
    call = "machine.keep_memory(); " if kept else ""
    program = f"from focalnet import machine; {call}bytearray(2**27); print(open('/proc/self/statm').read().split()[1])"
    pages = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert (int(pages) * 4096 > 2**27) == kept
