"""What is said of this machine's processor."""

import pytest

from focalnet import machine


@pytest.mark.parametrize(
    ("abilities", "multiplies"),
    [((), True), (("AVX2",), False), (("AVX2", "AVX-512 BF16"), True), (("AMX bf16",), True), (("NEON", "bf16"), True)],
)
def test_who_multiplies_in_bfloat16(monkeypatch, abilities, multiplies):
    monkeypatch.setattr(machine, "abilities", lambda: abilities)
    assert machine.multiplies_bfloat16() == multiplies
