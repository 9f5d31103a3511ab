"""Figures of a speech codec against plain computations."""

import sys

import numpy as np
import pytest
import torch

from focalnet.errors import MissingExtraError
from focalnet.inputs.mel import log_mel
from focalnet.metrics.speech import Codebook, ShareOfVariance, WordErrors, edit_distance, stoi


def test_share_of_variance_is_one_for_the_mean_and_adds_up():
    truth = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2.0, 5.0]) + 7
    mean, halves = ShareOfVariance(), ShareOfVariance()
    mean.update(truth.mean(0).expand(50, 3), truth)
    assert mean.compute() == pytest.approx(1.0)
    predicted = truth + 0.5
    for part in (slice(0, 20), slice(20, 50)):
        halves.update(predicted[part], truth[part])
    wanted = (0.25 * truth.numel()) / ((truth - truth.mean(0)) ** 2).sum()
    assert halves.compute() == pytest.approx(float(wanted))
    flat = ShareOfVariance()
    flat.update(torch.ones(4, 2), torch.ones(4, 2))
    assert flat.compute() is None


def test_tokens_are_counted():
    codebook = Codebook(2)
    codebook.update(torch.tensor([[0, 0, 1, 3]]))
    codebook.update(torch.tensor([0, 0, 1, 3]))
    assert codebook.compute() == {"entropy": pytest.approx(1.5), "codebook_use": 0.75}
    one = Codebook(2)
    one.update(torch.tensor([2, 2]))
    assert one.compute() == {"entropy": 0.0, "codebook_use": 0.25}


@pytest.mark.parametrize(
    ("wanted", "heard", "edits"),
    [("a b c", "a b c", 0), ("a b c", "a c", 1), ("a b c", "x a b d", 2), ("", "a b", 2), ("a b", "", 2)],
)
def test_edit_distance(wanted, heard, edits):
    assert edit_distance(wanted.split(), heard.split()) == edits


def test_stoi_is_that_of_pystoi_or_absent(monkeypatch):
    pystoi = pytest.importorskip("pystoi")
    rng = np.random.default_rng(0)
    wave = (np.sin(np.arange(32000) * 0.1) * np.repeat(rng.uniform(0, 1, 100), 320)).astype(np.float32)
    noisy = wave + 0.1 * rng.standard_normal(len(wave)).astype(np.float32)
    assert stoi(wave, noisy, 16000) == pytest.approx(float(pystoi.stoi(wave, noisy, 16000)))
    for nothing in (np.zeros(32000, np.float32), wave[:400], wave[:7999], np.eye(1, 32000)[0]):
        assert stoi(nothing, nothing, 16000) is None
    monkeypatch.setitem(sys.modules, "pystoi", None)
    assert stoi(wave, noisy, 16000) is None


def test_word_errors_need_their_extra(monkeypatch):
    from focalnet.metrics import speech

    speech._recognizer.cache_clear()
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(MissingExtraError, match=r"focalnet\[speech\]"):
        WordErrors()


def test_log_mels_of_a_tone_are_where_its_frequency_is():
    """1 kHz is mel 15 on Slaney's scale, 8 kHz mel 45.2: of 80 bands, the 27th is the nearest."""
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(8000) / 16000)[None]
    mels = log_mel(tone, 16000)
    assert mels.shape == (1, 26, 80)
    assert int(mels[0, 12].argmax()) == 26
    assert log_mel(torch.zeros(1, 1), 16000).shape == (1, 2, 80)
    assert log_mel(torch.zeros(1, 1), 16000).unique().tolist() == pytest.approx([np.log(1e-5)])
    wave = torch.randn(1, 2048, requires_grad=True)
    log_mel(wave, 16000).sum().backward()
    assert bool(wave.grad.isfinite().all())
