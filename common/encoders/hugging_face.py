"""Encoders in the files of Hugging Face transformers: CLIPModel and VisionTextDualEncoderModel.

The text tower is taken apart (embeddings, encoder, last norm, row at the end token, projection), because transformers
takes token ids only and learned prompts are embeddings.
"""

import importlib
from typing import Any

from common import encoders
from common.encoders import Facts, Preprocessing
from common.errors import EXIT_DATA, ConfigError

CLIP, DUAL = "clip", "vision-text-dual-encoder"
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def facts(name: str) -> Facts:
    """Numbers that a config.json leaves out are those of transformers' own defaults."""
    config = encoders.configuration(name)
    kind = config.get("model_type")
    if kind not in (CLIP, DUAL):
        raise ConfigError(f"encoder {name!r}: expected a config.json of model type {CLIP!r} or {DUAL!r}, got {kind!r}")
    text, vision = config.get("text_config") or {}, config.get("vision_config") or {}
    if kind == DUAL and text.get("model_type") != "clip_text_model":
        raise ConfigError(
            f"encoder {name!r}: prompts are learned through a text tower of type 'clip_text_model', "
            f"got {text.get('model_type')!r}"
        )
    stride = vision.get("output_stride") or vision.get("patch_size", 32)
    side = vision.get("image_size", 224) // stride
    positions = text.get("max_position_embeddings", 77)
    return Facts(config.get("projection_dim", 512), text.get("hidden_size", 512), positions, (side, side))


def preprocessing(name: str) -> Preprocessing:
    place = encoders.folder(name)
    encoders.check_files(place, (encoders.PREPROCESSING,))
    given = encoders.read_json(place / encoders.PREPROCESSING)
    resize, crop = _side(given.get("size", 224)), _side(given.get("crop_size", given.get("size", 224)))
    mean, std = given.get("image_mean", CLIP_MEAN), given.get("image_std", CLIP_STD)
    return Preprocessing(resize, crop, tuple(mean), tuple(std), int(given.get("resample", 3)))


def load(name: str, device: str = "cpu") -> "HuggingFace":
    place = encoders.folder(name)
    encoders.check_files(place, (encoders.CONFIG, encoders.WEIGHTS))
    if not any((place / file).is_file() for file in encoders.TOKENIZER):
        raise ConfigError(f"encoder {place} lacks a tokenizer; {encoders.PLACE}", exit_code=EXIT_DATA)
    known = facts(name)
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise ConfigError(f"encoder {name!r} needs edgefed[prompts]: transformers is not installed here") from error
    transformers.utils.logging.disable_progress_bar()
    try:
        model = transformers.AutoModel.from_pretrained(str(place), local_files_only=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(place), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"encoder {place} cannot be loaded: {error}; {encoders.PLACE}", exit_code=EXIT_DATA
        ) from error
    return HuggingFace(known, model.float().eval().requires_grad_(False).to(device), tokenizer)


class HuggingFace:
    """`common.encoders.Encoder` over a transformers model."""

    is_causal = True  # CLIP's text tower

    def __init__(self, known: Facts, model: Any, tokenizer: Any) -> None:  # Any: transformers has no types that hold
        self.facts = known
        self.logit_scale = float(model.logit_scale.exp())
        self._model, self._tokenizer = model, tokenizer
        self._text = getattr(model.text_model, "text_model", model.text_model)

    def tokens(self, texts: list[str], length: int | None = None) -> Any:
        how = {"padding": True} if length is None else {"padding": "max_length", "max_length": length}
        ids = self._tokenizer(texts, return_tensors="pt", **how)["input_ids"]
        return ids.to(self._model.device)

    def ends(self, ids: Any) -> Any:
        """The end token has the largest id, and fills up behind itself in some tokenizers: its first place counts.

        config.json is not asked: OpenAI's says that the end is 2, and transformers then looks for the largest id too.
        """
        return ids.argmax(dim=-1)

    def embedded(self, ids: Any) -> Any:
        return self._text.embeddings.token_embedding(ids)

    def text_features(self, embedded: Any, ends: Any) -> Any:
        torch = importlib.import_module("torch")
        n, length, _ = embedded.shape
        hidden = self._text.embeddings(inputs_embeds=embedded)
        mask = torch.full((length, length), torch.finfo(hidden.dtype).min, device=hidden.device).triu(1)
        hidden = self._text.encoder(inputs_embeds=hidden, attention_mask=mask[None, None].expand(n, 1, -1, -1))
        last = self._text.final_layer_norm(hidden.last_hidden_state[torch.arange(n, device=ends.device), ends])
        return self._model.text_projection(last)

    def image_tower(self) -> Any:
        from common.encoders import _tower  # it needs torch when it is imported

        return _tower.ImageTower(self._model)


def _side(given: Any) -> int:  # Any: JSON; a number, {"shortest_edge": n} or {"height": n, "width": n}
    return int(given if isinstance(given, int) else given.get("shortest_edge") or given["height"])
