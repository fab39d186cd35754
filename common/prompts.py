"""Prompts between payloads and a model's tensors."""

from collections.abc import Iterable, Mapping

import numpy as np

from common.average import weighted_mean
from common.errors import ConfigError
from common.method import Model, Scalar, Spec
from common.payloads import Payload, Prompt, Weights

CONTEXT = "prompt.context"  # the common prompt among a model's tensors


def check_model(parameters: Mapping[str, Spec], method: str) -> None:
    if CONTEXT not in parameters:
        raise ConfigError(
            f"{method} learns prompts: it needs [model] name = 'prompted' with context of 1 or more, and the model has "
            f"{', '.join(parameters) or 'no tensors'}"
        )


def first_prompt(
    model: Model, start: Mapping[str, Payload], rng: "np.random.Generator", method: str, **variant: Scalar
) -> Prompt:
    """The model's first draw, or the payload "prompt" of an earlier run.

    Raises:
        ConfigError: the model has no prompt, or the earlier one does not fit it.
    """
    check_model(model.parameters(**variant), method)
    drawn, given = model.initial(rng, **variant)[CONTEXT], start.get("prompt")
    if given is None:
        return Prompt(drawn)
    if not isinstance(given, Prompt) or given.context.shape != drawn.shape:
        got = list(given.context.shape) if isinstance(given, Prompt) else type(given).__name__
        raise ConfigError(f"init_from: payload 'prompt' must be a prompt of {list(drawn.shape)}, got {got}")
    return given


def weights_of(prompt: Prompt | None) -> Weights | None:
    return None if prompt is None else Weights({CONTEXT: prompt.context})


def prompt_of(weights: Weights) -> Prompt:
    return Prompt(weights[CONTEXT])


def own_part(weights: Weights) -> Weights | None:
    """All but the common prompt: what stays with the agent."""
    return weights.without((CONTEXT,)) or None


def adapter(parameters: Mapping[str, Spec]) -> tuple[str, ...]:
    return tuple(name for name, spec in parameters.items() if spec.part == "adapter")


def joined(prompt: Prompt | None, others: Weights | None) -> Weights:
    """A prompt and other tensors as one, to be averaged together."""
    return (weights_of(prompt) or Weights({})).updated(others or {})


def split(
    weights: Weights, shared: Iterable[str], *, prompt: bool
) -> tuple[Prompt | None, Weights | None, Weights | None]:
    """The prompt and the shared others, as `joined` puts them together, and what is left."""
    also = weights.only(shared)
    stays = weights.without((*also, CONTEXT) if prompt else also)
    return prompt_of(weights) if prompt else None, also or None, stays or None


def mean_prompt(parts: Iterable[tuple[str, float, Prompt]], like: Prompt) -> Prompt:
    """By mass, as `common.average.weighted_mean`, whose errors it raises."""
    rows = ((agent, mass, Weights({CONTEXT: prompt.context})) for agent, mass, prompt in parts)
    return prompt_of(weighted_mean(rows, like=Weights({CONTEXT: like.context})))
