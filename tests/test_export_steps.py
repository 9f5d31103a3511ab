"""Steps of a network as files of their own: a codec encodes and decodes, and streams whose state goes in and out."""

from pathlib import Path

import numpy as np
import pytest
import torch

import focalnet
from command_line import run
from focalnet.errors import UserError
from focalnet.exporting import export
from focalnet.models.create import create_model
from focalnet.models.publish import save_pretrained
from focalnet.models.runtimes import open_file
from test_gpu_benchmark import load

NARROW = load(Path(__file__).parents[1] / "benchmarks" / "formats.py").STREAM


def stream_codec():
    torch.manual_seed(0)
    return create_model("focalcodec_50hz_4k_causal", **NARROW).eval()


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return create_model("focalcodec_small").eval()


@pytest.mark.parametrize("ending", [".onnx", pytest.param(".xml", marks=pytest.mark.slow)])
def test_a_step_takes_any_length_and_predicts_nothing(small, tmp_path, ending):
    path = tmp_path / f"decode{ending}"
    written = export(small, path, step="decode")
    assert written.check.difference < 1e-5
    assert [shape[0] for shape in written.check.shapes] == [1, 2, 3, 1]
    assert (written.record.inputs, written.record.outputs, written.record.free) == (("tokens",), ("waves",), (0, 1))
    tokens = torch.randint(2**13, (4, 31))
    (waves,) = open_file(path)[1]([tokens.numpy()])
    torch.testing.assert_close(torch.from_numpy(waves), small.decode(tokens), rtol=0, atol=1e-5)
    with pytest.raises(UserError, match="is a step of a network, decode, from tokens to waves: it runs in"):
        focalnet.Predictor(str(path))


def test_what_is_no_step_is_said(small, tmp_path):
    image = create_model("minifocal_32", num_classes=2, embed_dim=8, depths=(1, 1, 1))
    for network, options, sentence in (
        (image, {"step": "encode"}, "FocalNetClassifier has no steps that could be files of their own"),
        (small, {}, r"FocalCodec is written step by step: name one with --step \(encode, decode\)"),
        (small, {"step": "encod"}, "no step of FocalCodec 'encod'; did you mean 'encode'"),
        (small, {"step": "encode_next"}, "no step of FocalCodec 'encode_next'"),
        (small, {"step": "encode", "parts": True}, "a step is written in float32"),
        (small, {"step": "encode", "format": "executorch"}, "takes inputs of one length, and encode takes any"),
    ):
        ending = ".pte" if "format" in options else ".onnx"
        with pytest.raises(UserError, match=sentence):
            export(network, tmp_path / f"step{ending}", **options)
    assert not [*tmp_path.iterdir()]


def test_another_file_is_noticed(small, tmp_path, monkeypatch):
    other = type(small).decode

    def louder(self, tokens, *rest):
        found = other(self, tokens, *rest)
        return 1.01 * found if torch.compiler.is_compiling() else found

    monkeypatch.setattr(type(small), "decode", louder)
    with pytest.raises(UserError, match=r"the exported file differs by 1\.0e-02"):
        export(small, tmp_path / "decode.pt2", step="decode")
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("ending", [".pt2", ".onnx", ".xml"])
def test_a_stream_goes_through_files_as_through_the_codec(tmp_path, ending):
    codec = stream_codec()
    steps = {}
    for step in ("encode_first", "encode_next", "decode_first", "decode_next"):
        written = export(codec, tmp_path / f"{step}{ending}", step=step)
        assert written.check.difference < 1e-5, step
        assert (written.check.agree is None) == step.startswith("decode")
        steps[step] = open_file(written.path)[1]
    waves = torch.randn(2, 12 * codec.chunk_size) / 9
    tokens, sound, state, back = [], [], [], []
    for chunk in waves.split(codec.chunk_size, 1):
        at = "next" if state else "first"
        found, *state = steps[f"encode_{at}"]([chunk.numpy(), *state])
        heard, *back = steps[f"decode_{at}"]([found, *back])
        tokens.append(found)
        sound.append(heard)
    whole = codec.encode(waves)
    assert np.array_equal(np.concatenate(tokens, 1), whole.numpy())
    torch.testing.assert_close(torch.from_numpy(np.concatenate(sound, 1)), codec.decode(whole), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_command_writes_a_step(small, tmp_path, capsys):
    save_pretrained(small, tmp_path / "small")
    code, printed, err = run(capsys, "export", tmp_path / "small", tmp_path / "encode.pt2", "--step", "encode")
    assert code == 0, err
    assert "predictions agree" in printed
    code, _, err = run(capsys, "predict", tmp_path / "encode.pt2", tmp_path / "x.wav")
    assert code == 2
    assert "from waves to tokens: it runs in torch alone" in err
