import pytest

from common import class_texts
from common.errors import ConfigError, UnknownName


def test_sentences_of_data_sets() -> None:
    assert class_texts.of("caltech101").sentence("airplanes") == "a photo of a airplane."
    assert class_texts.of("caltech101").sentence("sea_horse") == "a photo of a sea horse."
    assert class_texts.of("oxford_pets").sentence("great_pyrenees") == "a photo of a great pyrenees, a type of pet."
    assert class_texts.of("", "art of {}!").sentence("airplanes") == "art of airplanes!"


def test_what_cannot_be() -> None:
    with pytest.raises(UnknownName, match="did you mean 'oxford_pets'"):
        class_texts.of("oxford_pet")
    with pytest.raises(ConfigError, match=r"expected \{\} once, where the name goes, got 'a photo'"):
        class_texts.of("", "a photo")
