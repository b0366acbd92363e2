"""The bundled model's own pass over packed rows, in training and in examinations."""

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from transformers import FastVlmForConditionalGeneration


def embedded(
    model: FastVlmForConditionalGeneration, ids: torch.Tensor, outputs: torch.Tensor
) -> torch.Tensor:
    """Return token embeddings with the image's tokens in their places."""
    projector = model.model.multi_modal_projector
    padded = functional.pad(outputs, (0, projector.linear_2.in_features - outputs.shape[-1]))
    vectors = projector.linear_2(padded)
    embeds: torch.Tensor = model.get_input_embeddings()(ids)
    mask = (ids == model.config.image_token_id).unsqueeze(-1)
    return embeds.masked_scatter(mask, vectors.to(embeds.dtype))


def hidden_states(
    model: FastVlmForConditionalGeneration, batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """Return the states after every layer; each question sees the shared part and itself."""
    segments = batch["segments"]
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    same = segments[:, :, None] == segments[:, None, :]
    mask = causal & (same | (segments[:, None, :] == 0))
    states: tuple[torch.Tensor, ...] = model.model.language_model(
        inputs_embeds=embedded(model, batch["ids"], batch["outputs"]),
        attention_mask=mask[:, None],
        position_ids=batch["positions"],
        output_hidden_states=True,
        use_cache=False,
    ).hidden_states
    return states


def on_its_device(
    model: FastVlmForConditionalGeneration, batch: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return a batch where the model is."""
    return {part: values.to(model.device) for part, values in batch.items()}


def answers_of(
    model: FastVlmForConditionalGeneration, batch: dict[str, torch.Tensor], yes: int, no: int
) -> npt.NDArray[np.float64]:
    """Return the log-odds of Yes for every question of a batch."""
    with torch.no_grad():
        batch = on_its_device(model, batch)
        last = hidden_states(model, batch)[-1].flatten(0, 1)[batch["answers"][:, 0].long()]
        table = model.lm_head.weight
        odds: npt.NDArray[np.float64] = (last @ (table[yes] - table[no])).double().cpu().numpy()
        return odds
