"""The code of a published card loads the repository by its id."""

from __future__ import annotations

from pathlib import Path

import pytest

from stedfm_hf.cards.published import card_for_hub

ID = "my-lab/cells"
IMPORT = "from huggingface_hub import snapshot_download"


@pytest.mark.parametrize(
    ("language", "local", "published"),
    [
        ("python", 'AutoModel.from_pretrained("my-model").eval()', f'AutoModel.from_pretrained("{ID}").eval()'),
        ("python", "pipeline('x', model='./my-model/')", f"pipeline('x', model='{ID}')"),
        ("python", 'from_pretrained("Title of the card")', f'from_pretrained("{ID}")'),
        ("python", 'create_model("local-dir:my-model", True)', f'create_model("hf-hub:{ID}", True)'),
        (
            "python",
            'InferenceSession("my-model/model.onnx")',
            f'{IMPORT}\nInferenceSession(snapshot_download("{ID}") + "/model.onnx")',
        ),
        ("python", 'repo = "PATH"  # of this folder, or its id on the Hub', f'repo = "{ID}"'),
        ("bash", "stedfm embed images/ --model my-model", f"stedfm embed images/ --model {ID}"),
        (
            "bash",
            "stedfm embed images/ --model my-model --backend onnx",
            f"hf download {ID} --local-dir cells\nstedfm embed images/ --model cells --backend onnx",
        ),
        ("bash", "stedfm embed my-model --model demo", "stedfm embed my-model --model demo"),
        ("python", 'from_pretrained("my-model-2")', 'from_pretrained("my-model-2")'),
        ("python", f'from_pretrained("{ID}")', f'from_pretrained("{ID}")'),
        ("python", 'from_pretrained("lab/my-model")', 'from_pretrained("lab/my-model")'),
        ("python", 'label == "my-model"', 'label == "my-model"'),
    ],
)
def test_code_that_loads_the_folder_gets_the_id(language: str, local: str, published: str) -> None:
    card = (
        "# Title of the card\n\nHow `my-model` is used, `--model my-model`:\n\n```{}\n# a comment\n{}\n```\n\nMore.\n"
    )
    expected = card.format(language, published)
    if published.startswith(IMPORT):
        code = published.removeprefix(f"{IMPORT}\n")
        expected = card.format(language, code).replace("# a comment", f"{IMPORT}\n# a comment")
    assert card_for_hub(card.format(language, local), Path("somewhere/my-model"), ID) == expected


def test_a_card_without_code_is_not_changed() -> None:
    assert card_for_hub("---\nlicense: mit\n---\n\n```\n```\n", Path("my-model"), ID).endswith("```\n```\n")
