from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf import StedFmForPreTraining
from stedfm_hf.modeling.layers_stedfm import patchify
from tests.models import pixels, tiny_config


@pytest.fixture(scope="module")
def model() -> StedFmForPreTraining:
    torch.manual_seed(0)
    return StedFmForPreTraining(tiny_config()).eval()


@given(rows=st.integers(1, 5), cols=st.integers(2, 5), seed=st.integers(0, 99))
def test_kept_and_masked_patches_make_the_image(model: StedFmForPreTraining, rows: int, cols: int, seed: int) -> None:
    patches = rows * cols
    if int(patches * 0.25) == 0:
        return
    noise = torch.rand(2, patches, generator=torch.Generator().manual_seed(seed))
    output = model(pixels(2, 8 * rows, 8 * cols), noise=noise)
    kept = int(patches * 0.25)
    assert output.mask.sum(dim=1).tolist() == [patches - kept] * 2
    assert torch.equal(output.mask.gather(1, output.ids_masked), torch.ones_like(output.ids_masked, dtype=torch.bool))
    order = output.ids_restore.argsort(dim=1)
    assert torch.equal(order, noise.argsort(dim=1)) and torch.equal(order[:, kept:], output.ids_masked)


def test_hidden_pixels_change_nothing_but_the_loss(model: StedFmForPreTraining) -> None:
    images, noise = pixels(), torch.rand(2, 16, generator=torch.Generator().manual_seed(1))
    before = model(images, noise=noise)
    hidden = before.mask.reshape(2, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    after = model(torch.where(hidden, 1 - images, images), noise=noise)
    assert torch.equal(before.logits, after.logits) and before.loss != after.loss


def test_the_loss_is_that_of_the_masked_pixels(model: StedFmForPreTraining) -> None:
    images = pixels()
    output = model(images, noise=torch.rand(2, 16))
    targets = torch.stack([patchify(images, 8)[i][output.ids_masked[i]] for i in range(2)])
    torch.testing.assert_close(output.loss, (output.logits - targets).square().mean())


def test_chosen_masks_are_in_raster_order(model: StedFmForPreTraining) -> None:
    chosen = torch.zeros(2, 16, dtype=torch.bool)
    chosen[0, [3, 5, 11]] = chosen[1, [0, 1, 15]] = True
    output = model(pixels(), bool_masked_pos=chosen)
    assert output.ids_masked.tolist() == [[3, 5, 11], [0, 1, 15]]
    assert torch.equal(output.mask, chosen) and output.logits.shape == (2, 3, 64)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"noise": torch.rand(2, 15)}, r"noise must be .* = \(2, 16\)"),
        ({"bool_masked_pos": torch.eye(2, 16).cumsum(0).bool()}, "equally many"),
        ({"bool_masked_pos": torch.zeros(2, 16, dtype=torch.bool)}, "some, but not all"),
        ({"bool_masked_pos": torch.ones(2, 16, dtype=torch.bool)}, "some, but not all"),
        ({"noise": torch.rand(2, 16), "generator": torch.Generator()}, "at most one"),
    ],
)
def test_unfit_masks_are_named(model: StedFmForPreTraining, kwargs: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(pixels(), **kwargs)


def test_a_generator_repeats_a_mask_and_leaves_the_global_one_alone(model: StedFmForPreTraining) -> None:
    state = torch.get_rng_state()
    masks = [model(pixels(), generator=torch.Generator().manual_seed(7)).mask for _ in range(2)]
    assert torch.equal(*masks) and torch.equal(state, torch.get_rng_state())
    torch.manual_seed(3)
    drawn = model(pixels()).mask
    torch.manual_seed(3)
    assert torch.equal(drawn, model(pixels(), noise=torch.rand(2, 16)).mask)


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_reconstruction_keeps_what_was_visible(norm_pix_loss: bool) -> None:
    model = StedFmForPreTraining(tiny_config(norm_pix_loss=norm_pix_loss, num_channels=2)).eval()
    images = pixels(2, 24, 40, channels=2)
    output = model(images, noise=torch.rand(2, 15))
    result = model.reconstruct(images, output)
    hidden = output.mask.reshape(2, 1, 3, 5).repeat_interleave(8, 2).repeat_interleave(8, 3).expand_as(images)
    assert torch.equal(result[~hidden], images[~hidden])
    predicted = patchify(result, 8).gather(1, output.ids_masked[:, :, None].expand(-1, -1, 128))
    if norm_pix_loss:
        target = patchify(images, 8).gather(1, output.ids_masked[:, :, None].expand(-1, -1, 128))
        predicted = (predicted - target.mean(-1, keepdim=True)) / target.var(-1, keepdim=True).add(1e-6).sqrt()
    torch.testing.assert_close(predicted, output.logits, rtol=1e-4, atol=1e-5)


def test_no_parameter_is_idle(model: StedFmForPreTraining) -> None:
    model.zero_grad()
    model(pixels(), noise=torch.rand(2, 16)).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
