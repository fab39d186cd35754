"""What a data set's classes are called in a sentence, and in which; a class list itself stays as the data have it.

Source: Zhou et al., Learning to Prompt for Vision-Language Models, IJCV 2022 (templates and spoken names).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from common.errors import ConfigError, UnknownName

NAME = "{}"


@dataclass(frozen=True)
class ClassTexts:
    """`template` has {} where the name goes; `spoken` has the classes whose folder name is no word for one."""

    template: str = "a photo of a {}."
    spoken: Mapping[str, str] = field(default_factory=dict)

    def name(self, given: str) -> str:
        return self.spoken.get(given, given).replace("_", " ")

    def sentence(self, given: str) -> str:
        return self.template.replace(NAME, self.name(given))


_PETS = ClassTexts("a photo of a {}, a type of pet.")
TEXTS: dict[str, ClassTexts] = {
    "": ClassTexts(),
    "caltech101": ClassTexts(
        spoken={"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"}
    ),
    "oxford_pets": _PETS,
    "oxford_flowers": ClassTexts("a photo of a {}, a type of flower."),
}


def of(data: str, template: str = "") -> ClassTexts:
    """The texts of a data set, perhaps with another template.

    Raises:
        UnknownName: no texts are known for it.
        ConfigError: the template has no place for the name.
    """
    if data not in TEXTS:
        raise UnknownName("option texts of model prompted", data, [name for name in TEXTS if name])
    if template and template.count(NAME) != 1:
        raise ConfigError(
            f"option template of model prompted: expected {{}} once, where the name goes, got {template!r}"
        )
    return ClassTexts(template, TEXTS[data].spoken) if template else TEXTS[data]
