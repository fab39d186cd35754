"""Encoders: texts with and without injected prompts, cut and whole, against transformers' own; towers as ONNX."""

import json
import string
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from common import encoders
from common.errors import ConfigError
from common.nets._texts import Spliced

TEXTS = ["a photo of a cat.", "a sea horse.", "x."]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def write_tokenizer(folder: Path) -> int:
    """One token a letter; gives the number of tokens."""
    letters = [*string.ascii_lowercase, "."]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    marks = {"bos_token": words[-2], "eos_token": words[-1], "unk_token": words[-1], "pad_token": words[-1]}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 40, **marks}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(words)


def save(kind: str, folder: Path) -> Any:
    """A small random model of transformers in its own files."""
    transformers = pytest.importorskip("transformers")
    folder.mkdir()
    n = write_tokenizer(folder)
    text = {
        "vocab_size": n, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 40, "bos_token_id": n - 2, "eos_token_id": n - 1, "projection_dim": 12,
    }  # fmt: skip
    torch.manual_seed(0)
    if kind == "clip":
        vision = {
            "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 8, "projection_dim": 12,
        }  # fmt: skip
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
        model = transformers.CLIPModel(config)
    else:
        config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
            transformers.MobileNetV2Config(image_size=32, depth_multiplier=0.25, hidden_size=1280),
            transformers.CLIPTextConfig(**text),
            projection_dim=12,
        )
        model = transformers.VisionTextDualEncoderModel(config)
    model.save_pretrained(str(folder))
    half = [0.5, 0.5, 0.5]
    about = {
        "size": {"shortest_edge": 32},
        "crop_size": {"height": 32, "width": 32},
        "image_mean": half,
        "image_std": half,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    return model.eval()


def made(kind: str, folder: Path) -> tuple[encoders.Encoder, Any, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' own
        model = save(kind, folder / kind)
        return encoders.load(str(folder / kind)), model.requires_grad_(False), str(folder / kind)


@pytest.fixture(scope="module", params=["clip", "dual"])
def saved(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[encoders.Encoder, Any, str]:
    return made(request.param, tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="module", params=["tiny", "clip"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> encoders.Encoder:
    tiny = request.param == "tiny"
    return encoders.load("tiny") if tiny else made(request.param, tmp_path_factory.mktemp("encoder"))[0]


def test_facts_come_from_the_configuration(saved: tuple[encoders.Encoder, Any, str]) -> None:
    encoder, model, name = saved
    facts = encoders.facts(name)
    assert (facts.dim, facts.width, facts.n_positions) == (12, 16, 40)
    with torch.no_grad():
        whole, dense = encoder.image_tower()(torch.zeros(2, 3, 32, 32))
    assert tuple(whole.shape) == (2, 12)
    assert tuple(dense.shape) == (2, *facts.map, 12)
    assert encoder.logit_scale == pytest.approx(float(model.logit_scale.exp()))


def test_features_are_transformers_own(saved: tuple[encoders.Encoder, Any, str]) -> None:
    encoder, model, _ = saved
    ids = encoder.tokens(TEXTS)
    with torch.no_grad():
        text = model.get_text_features(input_ids=ids, attention_mask=torch.ones_like(ids)).pooler_output
        found = encoder.text_features(encoder.embedded(ids), encoder.ends(ids))
        torch.testing.assert_close(found, text, atol=1e-5, rtol=0)
        pixels = torch.randn(2, 3, 32, 32)
        image = model.get_image_features(pixel_values=pixels).pooler_output
        torch.testing.assert_close(encoder.image_tower()(pixels)[0], image, atol=1e-5, rtol=0)


def test_texts_cut_behind_their_ends_equal_whole_ones(encoder: encoders.Encoder) -> None:
    with torch.no_grad():
        cut, whole = encoder.tokens(TEXTS), encoder.tokens(TEXTS, encoder.facts.n_positions)
        assert cut.shape[1] < whole.shape[1]
        found = [encoder.text_features(encoder.embedded(ids), encoder.ends(ids)) for ids in (cut, whole)]
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=0)


def test_a_prompt_of_real_words_is_the_text_of_these_words(encoder: encoders.Encoder) -> None:
    words, names = "an old", ["cat", "sea horse"]
    with torch.no_grad():
        ids = encoder.tokens([words])
        context = encoder.embedded(ids)[:, 1 : int(encoder.ends(ids)[0])]  # without start and end
        embedded, ends = Spliced(encoder, [f"{n}." for n in names], context.shape[1]).behind(context)
        whole = encoder.tokens([f"{words} {n}." for n in names])
        expected = encoder.text_features(encoder.embedded(whole), encoder.ends(whole))
        torch.testing.assert_close(encoder.text_features(embedded, ends), expected, atol=1e-5, rtol=0)


def test_gradients_reach_the_prompt(saved: tuple[encoders.Encoder, Any, str]) -> None:
    encoder, _, _ = saved
    context = torch.zeros(1, 3, 16, requires_grad=True)
    embedded, ends = Spliced(encoder, ["cat."], 3).behind(context)
    encoder.text_features(embedded, ends).sum().backward()
    assert context.grad is not None
    assert float(context.grad.abs().sum()) > 0


def test_a_tower_that_is_not_causal_is_not_cut() -> None:
    encoder = encoders.load("tiny")

    class Both:
        def __getattr__(self, name: str) -> Any:
            return False if name == "is_causal" else getattr(encoder, name)

    spliced = Spliced(Both(), ["cat."], 4)  # type: ignore[arg-type]  # by duck typing
    assert spliced.rest.shape[1] == encoder.facts.n_positions - 4 - 1


def test_a_context_too_long_for_the_positions() -> None:
    with pytest.raises(
        ConfigError, match="leaves 2 of the encoder's 32 positions for a class name, and the longest takes 4"
    ):
        Spliced(encoders.load("tiny"), ["cat."], 30)


@pytest.mark.slow
def test_the_exported_tower_gives_the_same_features(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    import onnxruntime

    from common.encoders.export import export

    export("tiny", tmp_path / "tower.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "tower.onnx"), providers=["CPUExecutionProvider"])
    tower = encoders.load("tiny").image_tower()
    for n in (1, 3):
        pixels = torch.randn(n, 3, 8, 8)
        with torch.no_grad():
            expected = tower(pixels)
        for found, wanted in zip(session.run(["global", "dense"], {"pixels": pixels.numpy()}), expected, strict=True):
            np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


# ------------------------------------------------------------------ what is missing


def test_no_such_encoder_says_what_to_place_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEFED_MODELS", str(tmp_path))
    with pytest.raises(ConfigError, match=r"no encoder 'clip'.*under EDGEFED_MODELS='.*'; place config.json"):
        encoders.facts("clip")


def test_a_hub_that_cannot_be_reached_says_what_to_place_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def fails(*_: object, **__: object) -> str:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(hub, "snapshot_download", fails)
    with pytest.raises(
        ConfigError, match=r"'some/clip' .* cannot be fetched from the hub: no route to host; place config"
    ):
        encoders.facts("some/clip")


def test_a_folder_without_weights_or_tokenizer_names_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lacks config.json; place"):
        encoders.facts(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ConfigError, match=r"lacks model.safetensors; place"):
        encoders.load(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"lacks a tokenizer; place"):
        encoders.load(str(tmp_path))
    with pytest.raises(ConfigError, match=r"lacks preprocessor_config.json"):
        encoders.preprocessing(str(tmp_path))


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match=r"expected a config.json of model type 'clip' or .* got 'bert'"):
        encoders.facts(str(tmp_path))
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ConfigError, match="must hold a JSON object, got list"):
        encoders.facts(str(tmp_path))
