"""Model cards and dataset cards, rendered from templates."""

from stedfm_hf.cards.converted import ConvertedCardFacts, render_converted_card
from stedfm_hf.cards.dataset import render_dataset_card
from stedfm_hf.cards.finetuned import FinetunedCardFacts, render_finetuned_card
from stedfm_hf.cards.generation import GenerationCardFacts, render_generation_card
from stedfm_hf.cards.pretrained import PretrainedCardFacts, TrainingData, render_pretrained_card

__all__ = [
    "ConvertedCardFacts",
    "FinetunedCardFacts",
    "GenerationCardFacts",
    "PretrainedCardFacts",
    "TrainingData",
    "render_converted_card",
    "render_dataset_card",
    "render_finetuned_card",
    "render_generation_card",
    "render_pretrained_card",
]
