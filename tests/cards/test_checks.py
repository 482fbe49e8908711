from __future__ import annotations

import pytest

from stedfm_hf.cards.checks import card_problems, known_licences, known_tasks

CARD = """---
license: mit
library_name: transformers
pipeline_tag: image-classification
tags: [sted]
model-index:
- name: a
  results:
  - task: {type: image-classification}
    dataset: {name: my-crops, type: my-crops}
    metrics: [{type: accuracy, value: 0.9}]
---
# A
## Use
## Input
## Training
## Limitations
## Citation
"""


def test_a_complete_card_has_no_problems() -> None:
    assert card_problems(CARD, "model") == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("license: mit\n", "", "has no licence; give --licence"),
        ("license: mit", "license: MIT", "licence 'MIT', which the Hub does not know"),
        ("license: mit", "license: other", "without its name"),
        ("library_name: transformers\n", "", "has no `library_name`"),
        ("pipeline_tag: image-classification\n", "", "has no `pipeline_tag`"),
        (
            "tag: image-classification",
            "tag: image-clasification",
            "did you mean image-classification",
        ),
        ("tags: [sted]\n", "", "has no `tags`"),
        ("{name: my-crops, type: my-crops}", "{}", "has a result in `model-index` without"),
        ("## Limitations\n", "", "has no section `## Limitations`"),
        ("license: mit", "license: [", "not valid YAML"),
        ("---\nlicense", "license", "has no front matter"),
    ],
)
def test_every_missing_field_is_named(old: str, new: str, words: str) -> None:
    assert old in CARD
    (problem,) = card_problems(CARD.replace(old, new, 1), "model")
    assert words in problem and "\n" not in problem


def test_the_lists_are_sorted_and_have_the_usual_names() -> None:
    assert {"mit", "cc-by-4.0", "other"} <= set(known_licences()) == set(sorted(known_licences()))
    assert {"image-feature-extraction", "image-segmentation"} <= set(known_tasks())
