"""Weights files from anywhere: good ones load exactly, bad ones are refused in one line."""

import io
import pickle
import zipfile
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from medapp.errors import WeightsError
from medapp.networks.checkpoint import (
    file_sha256,
    import_weights,
    keep_weights,
    load_checked,
    read_tensors,
    read_weights,
)
from medapp.networks.registry import build_network
from tests.networks.test_card import CARD

NAME = "restore_rwkv"
CONFIG = {"dim": 4, "num_blocks": [0, 1, 0, 1], "num_refinement_blocks": 0}


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return build_network(NAME, CONFIG).state_dict()


def _same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"state_dict": w, "epoch": 3},
        lambda w: {"params": w},
        lambda w: {f"module.{k}": v for k, v in w.items()},
        lambda w: {"ema": {f"module.{k}": v for k, v in w.items()}, "model": {"other": torch.zeros(1)}},
    ],
)
def test_weights_load_whatever_they_are_wrapped_in(tmp_path, weights, wrap):
    torch.save(wrap(weights), tmp_path / "weights.pth")
    assert _same(read_weights(tmp_path / "weights.pth", NAME, CONFIG), weights)


def test_two_sets_that_fit_are_not_guessed_between(tmp_path, weights):
    torch.save({"params": weights, "ema": {k: v + 1 for k, v in weights.items()}}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="several"):
        read_weights(tmp_path / "w.pth", NAME, CONFIG)


def test_safetensors_are_told_by_content_not_by_name(tmp_path, weights):
    save_file(weights, tmp_path / "weights.dat")
    assert _same(read_weights(tmp_path / "weights.dat", NAME, CONFIG), weights)


def test_the_mismatch_lists_missing_surplus_and_misshaped_keys(tmp_path, weights):
    del weights["output.bias"]
    weights["stranger"] = torch.zeros(1)
    weights["patch_embed.bias"] = torch.zeros(5)
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(WeightsError) as caught:
        read_weights(tmp_path / "w.pth", NAME, CONFIG)
    told = caught.value.message
    assert "missing (1): output.bias" in told
    assert "surplus (1): stranger" in told
    assert "patch_embed.bias [5] for [4]" in told


def test_at_most_five_keys_of_a_kind_are_listed(tmp_path):
    torch.save({"stranger": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError) as caught:
        read_weights(tmp_path / "w.pth", NAME, CONFIG)
    assert caught.value.message.count(",") <= 5


class _Evil:
    def __reduce__(self):
        import os

        return (os.system, ("touch /tmp/medapp_was_fooled",))


def test_code_in_a_file_is_named_and_not_run(tmp_path):
    torch.save({"weights": _Evil()}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"holds code.*system"):
        read_tensors(tmp_path / "w.pth")


def test_whole_modules_are_refused(tmp_path):
    torch.save(build_network(NAME, CONFIG), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="code"):
        read_tensors(tmp_path / "w.pth")


def test_plain_pickles_are_refused(tmp_path):
    (tmp_path / "w.pth").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(WeightsError, match="pickle"):
        read_tensors(tmp_path / "w.pth")


def test_torchscript_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("model/code/__torch__.py", "def forward(self): ...")
        archive.writestr("model/data.pkl", b"")
    with pytest.raises(WeightsError, match="TorchScript"):
        read_tensors(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["/etc/passwd", "a/../../b", "C:/b"])
def test_members_that_point_outside_are_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(WeightsError, match="outside"):
        read_tensors(tmp_path / "w.pth")


def test_compressed_archives_are_refused_before_they_unpack(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", bytes(10_000_000))
    with pytest.raises(WeightsError, match="compressed"):
        read_tensors(tmp_path / "w.pth")


def test_a_flipped_byte_is_noticed(tmp_path, weights):
    path = tmp_path / "w.pth"
    torch.save(weights, path)
    content = bytearray(path.read_bytes())
    needle = weights["patch_embed.weight"].numpy().tobytes()
    content[content.find(needle) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="checksum"):
        read_tensors(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_files_are_refused(tmp_path, weights, share):
    for name, save in (("w.pth", torch.save), ("w.safetensors", save_file)):
        path = tmp_path / name
        save(weights, path)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        with pytest.raises(WeightsError):
            read_tensors(path)


def test_a_view_larger_than_its_data_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1).expand(10**12)}, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").stat().st_size < 5000
    with pytest.raises(WeightsError, match=r"larger than its data|memory"):
        read_tensors(tmp_path / "w.pth")
    torch.save({"a": torch.zeros(1).expand(100)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="larger than its data"):
        read_tensors(tmp_path / "w.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(tmp_path, weights, value):
    weights["output.bias"] = torch.tensor([value])
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="not finite"):
        read_weights(tmp_path / "w.safetensors", NAME, CONFIG)


@pytest.mark.parametrize("content", [b"", b"hello", bytes(100), b"PK\x03\x04rest"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(WeightsError):
        read_tensors(tmp_path / "w.pth")


def test_tensors_outside_of_a_dictionary_are_refused(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="dictionary"):
        read_tensors(tmp_path / "w.pth")


def test_an_imported_model_is_kept_with_its_hash_and_loads(tmp_path, weights):
    buffer = io.BytesIO()
    torch.save({"state_dict": weights}, buffer)
    (tmp_path / "foreign.pth").write_bytes(buffer.getvalue())
    card = replace(CARD, config=CONFIG)

    kept = import_weights(tmp_path / "foreign.pth", card, tmp_path / "models")

    path = tmp_path / "models" / "toy-1.safetensors"
    assert kept.sha256 == file_sha256(path)
    assert _same(load_checked(path, kept).state_dict(), weights)
    assert sorted(p.name for p in path.parent.iterdir()) == ["toy-1.json", "toy-1.safetensors"]


def test_a_file_that_changed_after_its_card_is_not_loaded(tmp_path, weights):
    kept = keep_weights(weights, replace(CARD, config=CONFIG), tmp_path)
    weights["output.bias"] = weights["output.bias"] + 1
    save_file(weights, tmp_path / "toy-1.safetensors")
    with pytest.raises(WeightsError, match="changed"):
        load_checked(tmp_path / "toy-1.safetensors", kept)
