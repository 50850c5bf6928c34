"""Files from elsewhere: none of them runs code, fills the memory, or ends in a traceback."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vcil_bench import record
from vcil_bench.common.config import ConfigError, read_yaml
from vcil_bench.nets.backbones import BACKBONES
from vcil_bench.nets.backbones.clip import clip_architecture
from vcil_bench.nets.weights import BackboneError, read_state
from vcil_bench.training import checkpoint


class _Touch:
    """Pickles to a call that makes a file, as a hostile pickle would call a shell."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mknod, (str(self.path),)


@pytest.mark.parametrize("form", ["torch", "pickle"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_that_hold_code_are_refused_unrun(form: str, suffix: str, tmp_path: Path) -> None:
    proof, path = tmp_path / "proof", tmp_path / f"weights{suffix}"
    hostile = {"conv1.weight": _Touch(proof)}
    if form == "torch":
        torch.save(hostile, path)
    else:
        path.write_bytes(pickle.dumps(hostile, protocol=2))
    with pytest.raises(BackboneError, match="weights"):
        read_state(path)
    assert not proof.exists()


@pytest.mark.parametrize("backbone", ["clip_tiny", "tsm_tiny"])
def test_a_run_refuses_such_weights_in_one_line(
    backbone: str, tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proof, path = tmp_path / "proof", tmp_path / "weights.pt"
    torch.save({"x": _Touch(proof)}, path)
    assert tiny.run("finetune", tmp_path / "r", "--set", f"backbone={backbone}", f"weights={path}") == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not proof.exists()


HEADERS = {
    "longer than the file": (2**40).to_bytes(8, "little") + b"{}",
    "not JSON": (4).to_bytes(8, "little") + b"abcd",
    "offsets beyond the end": b"",
    "nested": b"",
    "empty": b"",
    "a pickle": pickle.dumps({"schema": 2}),
}


def _with_header(header: bytes) -> bytes:
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


HEADERS["offsets beyond the end"] = _with_header(
    json.dumps({"state/x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
)
HEADERS["nested"] = _with_header(json.dumps({"__metadata__": {"vcil_bench": "[" * 100_000}}).encode())


@pytest.mark.parametrize("kind", sorted(HEADERS))
def test_a_hostile_checkpoint_is_damaged(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt.safetensors"
    path.write_bytes(HEADERS[kind])
    with pytest.raises(checkpoint.CheckpointError, match="damaged checkpoint"):
        checkpoint.read(path)


@pytest.mark.parametrize("meta", [{}, {"schema": 1}, [1], "x", None])
def test_a_checkpoint_of_another_kind_is_refused(meta: Any, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "x.ckpt.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"vcil_bench": json.dumps(meta)})
    with pytest.raises(checkpoint.CheckpointError, match="schema"):
        checkpoint.read(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("!!python/object/apply:os.mknod [proof]", "malformed YAML"),
        ("name: !!python/name:os.system", "malformed YAML"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nname: [*b, *b]", "aliases"),
        ("name: " + "[" * 5000, "too deeply"),
    ],
)
def test_hostile_yaml_is_refused(text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "protocol.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_yaml(path)
    assert not (tmp_path / "proof").exists()


@pytest.fixture(scope="module")
def finished(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make one complete record."""
    folder = tmp_path_factory.mktemp("record")
    assert tiny.run("zero_shot", folder) == 0
    (path,) = folder.glob("*/*/*.json")
    return path


@pytest.mark.parametrize("kind", ["objects", pytest.param("bomb", marks=pytest.mark.slow)])
def test_hostile_predictions_are_refused(kind: str, finished: Path, tmp_path: Path) -> None:
    target = tmp_path / finished.name
    data = json.loads(finished.read_text())
    proof, buffer = tmp_path / "proof", io.BytesIO()
    if kind == "objects":
        np.savez(buffer, labels=np.array([_Touch(proof)], dtype=object))
    else:
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as members:
            members.writestr("labels.npy", bytes(2**29))
    target.with_suffix(".npz").write_bytes(buffer.getvalue())
    data["predictions"]["sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    target.write_text(json.dumps(data))
    with pytest.raises(record.RecordError, match="damaged predictions"):
        record.load(target)
    assert not proof.exists()


def test_a_record_nested_too_deeply_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[" * 200_000)
    with pytest.raises(record.RecordError, match="corrupt record"):
        record.load(path)


def _state(name: str, **changes: tuple[int, ...]) -> dict[str, Any]:
    """Return empty weights in the shapes of a CLIP of open_clip's, as far as they tell which one it is."""
    import open_clip

    config = open_clip.get_model_config(name)
    vision, width = config["vision_cfg"], config["text_cfg"]["width"]
    patch = (vision["width"], 3, vision["patch_size"], vision["patch_size"])
    shapes = {"visual.conv1.weight": patch, "visual.proj": (vision["width"], config["embed_dim"])}
    blocks = {f"visual.transformer.resblocks.{i}.ln_1.bias": (1,) for i in range(vision["layers"])}
    shapes |= {"ln_final.weight": (width,), **blocks, **changes}
    return {key: torch.zeros(shape) for key, shape in shapes.items()}


@pytest.mark.parametrize("name", ["ViT-L-14", "ViT-B-16", "ViT-B-32", "ViT-H-14"])
def test_a_clip_is_told_by_its_shapes(name: str) -> None:
    assert clip_architecture(_state(name)) == name


def test_what_is_no_clip_is_not_told() -> None:
    assert clip_architecture({}) is None
    assert clip_architecture({"conv1.weight": torch.zeros(64, 3, 7, 7)}) is None
    assert clip_architecture(_state("ViT-B-16", **{"visual.proj": (768, 7)})) is None


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_of_another_clip_are_called_what_they_are(
    suffix: str, tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import save_file

    path = tmp_path / f"weights{suffix}"
    (torch.save if suffix == ".pt" else save_file)(_state("ViT-L-14"), path)
    assert tiny.run("zero_shot", tmp_path / "r", "--set", f"weights={path}") == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert [part for part in (str(path), "ViT-L-14", "clip_tiny") if part not in line] == []


@pytest.mark.parametrize("backbone", ["clip_tiny", "tsm_tiny"])
@pytest.mark.parametrize(
    "content",
    [
        b"root:x:0:0:root:/root:/bin/bash\n",
        b"",
        b"{}",
        b"\x80\x02K\x07.",
        b"PK\x05\x06" + bytes(18),
        b"\x00" * 99,
    ],
    ids=["passwd", "empty", "JSON", "a pickled number", "an empty zip", "zeros"],
)
@pytest.mark.parametrize("suffix", ["", ".pt", ".safetensors"])
def test_files_that_are_no_weights_are_a_line(
    backbone: str, content: bytes, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(BackboneError) as caught:
        BACKBONES[backbone].load(str(path))
    assert str(path) in str(caught.value)
