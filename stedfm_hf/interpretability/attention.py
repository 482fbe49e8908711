"""Attention maps of any model and image size, in memory that grows with the number of patches and not its square."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.nn import functional

from stedfm_hf.modeling.modeling_stedfm import StedFmForImageClassification, StedFmPreTrainedModel
from stedfm_hf.runs import UserError

AGGREGATES = ("mean", "last", "rollout", "gradient", "reference")
"""How the attention of blocks and heads becomes one map."""
_NUMBERS = 2**24
"""Attention weights in memory at once, by rollout and gradient-weighted maps."""
_CONSTANT = 1e-5
"""Relative range up to which a map is constant: scaling it to [0, 1] would show rounding errors."""


def attention_maps(
    model: StedFmPreTrainedModel,
    pixel_values: torch.Tensor,
    *,
    aggregate: str = "mean",
    block: int | None = None,
    head: int | None = None,
    query: tuple[int, int] | None = None,
    label: int | None = None,
) -> torch.Tensor:
    """Compute how much attention a token pays to each patch.

    | aggregate | map |
    |---|---|
    | `mean` | mean over blocks and heads |
    | `last` | mean over the heads of the last block |
    | `rollout` | product over blocks of (mean over heads + identity) / 2 |
    | `gradient` | as rollout, with the part of the attention that increases a logit; see below |
    | `reference` | sum over blocks of the mean over heads, resized to the image and scaled to [0, 1] in each block |

    The weights of a row sum to 1 over all tokens, and the map leaves out the class token. A block whose attention is
    constant up to rounding adds 0 to the map of `reference`.

    `gradient` weights the attention of each head by the gradient of a logit, keeps what is positive, averages over
    heads and adds it up over blocks. It starts at the tokens that the classifier pools (all patches, or the class
    token), unless `query` is given, and leaves out the identity, which is the same for every image. Values have no
    unit: compare them within one image.

    Memory: the attention matrix is never held. Rows of the query need (B, heads, 1 + N) numbers of each block;
    `rollout` and `gradient` keep queries, keys and values of all blocks, in a small model 216 MiB for a field of 4096
    patches and 864 MiB for one of 16384, and compute weights in parts of 64 MiB. Measured with 1024 patches, where the
    forward pass takes 44 MiB: mean 62 MiB, rollout 183 MiB, gradient 408 MiB. The time of the last two grows with
    the square of the number of patches, as that of the model itself. `gradient` also keeps what the backward pass
    needs; in a model with `attn_implementation="eager"`, this includes the attention matrices.

    Args:
        model: Model that holds an encoder. `gradient` needs a classifier in evaluation mode.
        pixel_values: Images (B, C, H, W) float in [0, 1]; H and W are any multiples of the patch size.
        aggregate: One of `AGGREGATES`.
        block: Number of a block from 0, to take only this block; with `mean`.
        head: Number of a head from 0, to take only this head; with `mean`.
        query: Row and column of the patch whose attention is shown; None is the class token. The class token of a
            classifier with mean pooling is not trained. `reference` always takes the class token.
        label: Index of the class, with `gradient`; None takes the class with the highest logit in each image.

    Returns:
        Maps (B, rows, cols), or (B, H, W) for `reference`, float32 on the CPU.

    Raises:
        UserError: If the model has no attention or no logits, an argument is out of range, or it does not belong to
            the aggregate.

    Source:
        Rollout: Abnar and Zuidema, Quantifying attention flow in transformers, ACL 2020. Gradient: Chefer, Gur and
        Wolf, Generic attention-model explainability, ICCV 2021. Reference: reference protocol.

    Example:
        >>> from stedfm_hf import StedFmConfig, StedFmModel
        >>> model = StedFmModel(StedFmConfig(num_hidden_layers=2))
        >>> attention_maps(model, torch.rand(1, 1, 32, 48)).shape
        torch.Size([1, 2, 3])
        >>> attention_maps(model, torch.rand(1, 1, 32, 48), aggregate="reference").shape
        torch.Size([1, 32, 48])
    """
    _check_arguments(aggregate, block=block, head=head, query=query, label=label)
    encoder, grid = _encoder_of(model), _grid_of(model, pixel_values)
    start = _query_token(grid, query)
    if aggregate == "rollout":
        return _as_maps(_rollout(encoder, pixel_values, start), grid)
    if aggregate == "gradient":
        return _as_maps(_gradient_rows(model, pixel_values, None if query is None else start, label), grid)
    rows = attention_rows(model, pixel_values, query=query)
    _, blocks, heads, _ = rows.shape
    if aggregate == "reference":
        return reference_maps(_as_maps(rows.mean(dim=2), grid), pixel_values.shape[2:])
    if aggregate == "last":
        block = blocks - 1
    if block is not None:
        rows = rows[:, _in_range("block", block, blocks)].unsqueeze(1)
    if head is not None:
        rows = rows[:, :, _in_range("head", head, heads)].unsqueeze(2)
    return _as_maps(rows.mean(dim=(1, 2)), grid)


@torch.no_grad()
def attention_rows(
    model: StedFmPreTrainedModel, pixel_values: torch.Tensor, *, query: tuple[int, int] | None = None
) -> torch.Tensor:
    """Compute the attention of one token to all tokens, in every block and head.

    Args:
        model: Model that holds an encoder.
        pixel_values: Images (B, C, H, W) float in [0, 1].
        query: Row and column of a patch; None is the class token.

    Returns:
        Attention weights (B, blocks, heads, 1 + N), class token first, float32 on the CPU; they sum to 1.

    Raises:
        UserError: If the model has no attention, or there is no such patch.

    Example:
        >>> from stedfm_hf import StedFmConfig, StedFmModel
        >>> model = StedFmModel(StedFmConfig(num_hidden_layers=2))
        >>> attention_rows(model, torch.rand(1, 1, 32, 48), query=(1, 2)).shape
        torch.Size([1, 2, 6, 7])
    """
    encoder = _encoder_of(model)
    token = _query_token(_grid_of(model, pixel_values), query)
    rows: list[torch.Tensor] = []
    with _tapped(encoder, lambda q, k, _: rows.append(_weights(q[:, :, token : token + 1], k)[:, :, 0].cpu())):
        _encode(encoder, pixel_values)
    return torch.stack(rows, dim=1)


@torch.no_grad()
def attentions(model: StedFmPreTrainedModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """Compute the attention of all tokens to all tokens, in every block and head.

    The result needs 4 · B · blocks · heads · (1 + N)² bytes: 11 MiB for an image of 224 pixels in a small model with
    patches of 16, and 4.5 GiB for one of 1024 pixels. `attention_rows` and `attention_maps` avoid this.

    Args:
        model: Model that holds an encoder, with any attention implementation.
        pixel_values: Images (B, C, H, W) float in [0, 1]; H and W are any multiples of the patch size.

    Returns:
        Attention weights (B, blocks, heads, 1 + N, 1 + N), class token first, float32 on the CPU; rows sum to 1.

    Raises:
        UserError: If the model has no attention.

    Example:
        >>> from stedfm_hf import StedFmConfig, StedFmModel
        >>> attentions(StedFmModel(StedFmConfig(num_hidden_layers=2)), torch.rand(1, 1, 32, 48)).shape
        torch.Size([1, 2, 6, 7, 7])
    """
    encoder = _encoder_of(model)
    rows, cols = _grid_of(model, pixel_values)
    config, tokens = encoder.config, 1 + rows * cols
    found = torch.empty(
        len(pixel_values), config.num_hidden_layers, config.num_attention_heads, tokens, tokens, dtype=torch.float32
    )
    blocks = iter(range(config.num_hidden_layers))

    def keep(query: torch.Tensor, key: torch.Tensor, _: torch.Tensor) -> None:
        found[:, next(blocks)] = _weights(query, key)

    with _tapped(encoder, keep):
        _encode(encoder, pixel_values)
    return found


def _check_arguments(aggregate: str, **given: Any) -> None:
    """Refuse an unknown aggregate, and arguments that do not belong to it."""
    if aggregate not in AGGREGATES:
        raise UserError(f"aggregate {aggregate!r} is unknown; choose one of {', '.join(AGGREGATES)}")
    allowed = {
        "block": ("mean",),
        "head": ("mean",),
        "query": ("mean", "last", "rollout", "gradient"),
        "label": ("gradient",),
    }
    for name, value in given.items():
        if value is not None and aggregate not in allowed[name]:
            raise UserError(
                f"{name} {value} does not belong to the aggregate {aggregate!r}; leave it out, or choose "
                f"{' or '.join(allowed[name])}"
            )


def _encoder_of(model: Any) -> Any:
    """Return the part of a model that has `embeddings` and `encoder`."""
    if not isinstance(model, StedFmPreTrainedModel) or not hasattr(model.base_model, "embeddings"):
        raise UserError(f"a {type(model).__name__} does not show its attention; load the model with the backend torch")
    return model.base_model


def _grid_of(model: StedFmPreTrainedModel, pixel_values: torch.Tensor) -> tuple[int, int]:
    grid: tuple[int, int] = _encoder_of(model).embeddings.grid(pixel_values)
    return grid


def _encode(encoder: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """Return the tokens (B, 1 + N, D) after the last block, before the final norm."""
    hidden_states = encoder.embeddings(pixel_values.to(encoder.device))
    tokens: torch.Tensor = encoder.encoder(hidden_states).last_hidden_state
    return tokens


def _query_token(grid: tuple[int, int], query: tuple[int, int] | None) -> int:
    if query is None:
        return 0
    rows, cols = grid
    if len(query) != 2:
        raise UserError(f"query {query} is not a row and a column of a patch; give two numbers")
    return 1 + _in_range("row of query", query[0], rows) * cols + _in_range("column of query", query[1], cols)


def _in_range(name: str, number: int, count: int) -> int:
    if not 0 <= number < count:
        raise UserError(f"{name} {number} does not exist; give a number from 0 to {count - 1}")
    return number


def _as_maps(rows: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Return rows (..., 1 + N) as maps (..., rows, cols), without the class token."""
    return rows[..., 1:].unflatten(-1, grid)


def _weights(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Return the attention weights of (B, heads, n, d) to (B, heads, T, d), in float32."""
    scaled = query.float() * query.shape[-1] ** -0.5
    return (scaled @ key.float().transpose(2, 3)).softmax(dim=-1)


@contextmanager
def _tapped(
    encoder: Any, take: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]
) -> Iterator[list[torch.Tensor]]:
    """Call `take` with queries, keys and values (B, heads, T, d) of each block, in the order of the blocks.

    Models use the attention implementation that they have: the weights are computed from queries and keys.

    Yields:
        List that gets the attention output (B, T, D) of each block, before its projection.
    """
    mixed: list[torch.Tensor] = []
    with ExitStack() as hooks:
        for layer in encoder.encoder.layers:
            attention = layer.attention
            shape = (3, attention.num_attention_heads, attention.head_dim)

            def split(_: Any, __: Any, qkv: torch.Tensor, shape: tuple[int, ...] = shape) -> None:
                take(*qkv.detach().unflatten(-1, shape).permute(2, 0, 3, 1, 4).unbind(0))

            hooks.callback(attention.qkv.register_forward_hook(split).remove)
            hooks.callback(attention.out_proj.register_forward_pre_hook(lambda _, args: mixed.append(args[0])).remove)
        yield mixed


def reference_maps(maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Sum the attention maps of all blocks, resized to the image and each scaled to [0, 1].

    Args:
        maps: Attention of the class token to the patches, mean over heads (B, blocks, rows, cols).
        size: Height and width of the image, in pixels.

    Returns:
        (B, height, width); a constant map is 0.

    Source:
        Reference protocol.
    """
    total = torch.zeros(len(maps), *size)
    for number in range(maps.shape[1]):  # one block at a time: maps at the size of the image are large
        each = functional.interpolate(maps[:, number : number + 1], size=tuple(size), mode="bilinear")[:, 0]
        low, high = each.amin(dim=(1, 2), keepdim=True), each.amax(dim=(1, 2), keepdim=True)
        varies = high - low > _CONSTANT * high
        total += torch.where(varies, (each - low) / torch.where(varies, high - low, 1), 0)
    return total


@torch.no_grad()
def _rollout(encoder: Any, pixel_values: torch.Tensor, token: int) -> torch.Tensor:
    """Return the row (B, 1 + N) of a token in the product of (mean over heads + identity) / 2 over the blocks.

    The row is multiplied by the matrices from the last block to the first, so that no product of matrices is needed.
    """
    blocks: list[tuple[torch.Tensor, torch.Tensor]] = []
    with _tapped(encoder, lambda query, key, _: blocks.append((query, key))):
        tokens = _encode(encoder, pixel_values)
    row = torch.zeros(tokens.shape[:2], device=tokens.device)
    row[:, token] = 1
    for query, key in reversed(blocks):
        row = (row + _through(row, query, key)) / 2
    return row.cpu()


def _gradient_rows(
    model: StedFmPreTrainedModel, pixel_values: torch.Tensor, token: int | None, label: int | None
) -> torch.Tensor:
    """Return the gradient-weighted attention (B, 1 + N) of a token, or of the tokens that a classifier pools."""
    if not isinstance(model, StedFmForImageClassification):
        raise UserError(
            f"aggregate 'gradient' needs a classifier, and a {type(model).__name__} has no logits; give a folder "
            "written by `stedfm finetune classification`, or choose rollout"
        )
    if model.training or model.classifier.training:
        raise UserError("aggregate 'gradient' needs a classifier in evaluation mode; call model.eval()")
    if model.dtype == torch.float16:
        raise UserError("aggregate 'gradient': gradients are too small for float16; use float32 or bfloat16")
    if label is not None:
        _in_range("label", label, model.config.num_labels)
    encoder: Any = model.stedfm
    blocks: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    # Outside of an inference_mode of the caller, in which there are no gradients.
    with torch.inference_mode(False), torch.enable_grad():
        with _tapped(encoder, lambda query, key, value: blocks.append((query, key, value))) as mixed:
            # Gradients are needed of the tokens only, also if the weights are frozen.
            hidden_states = encoder.embeddings(pixel_values.clone().to(encoder.device)).detach().requires_grad_()
            tokens = encoder.norm(encoder.encoder(hidden_states).last_hidden_state)
        logits = model.classify(encoder.pool(tokens))
        labels = logits.argmax(dim=1) if label is None else torch.full_like(logits[:, 0], label, dtype=torch.int64)
        gradients = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), mixed)
    with torch.no_grad():
        start = torch.zeros(tokens.shape[:2], device=tokens.device)
        if token is None and model.config.pooling == "avg":
            start[:, 1:] = 1 / (tokens.shape[1] - 1)
        else:
            start[:, token or 0] = 1
        row = start
        for (query, key, value), gradient in zip(reversed(blocks), reversed(gradients), strict=True):
            heads = gradient.unflatten(-1, (query.shape[1], -1)).transpose(1, 2)
            row = row + _through(row, query, key, (value, heads))
        return (row - start).cpu()


def _through(
    row: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    weighting: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Multiply a row (B, T) by the mean over heads of attention weights (B, heads, T, T), a part of the rows at once.

    Args:
        row: Row (B, T).
        query: Queries (B, heads, T, d).
        key: Keys (B, heads, T, d).
        weighting: Values (B, heads, T, d) and gradient of the attention output (B, heads, T, d), to weight the weights
            by their gradient and keep the positive part.
    """
    batch, heads, tokens, _ = query.shape
    result = torch.zeros_like(row)
    step = max(1, _NUMBERS // (batch * heads * tokens))
    for first in range(0, tokens, step):
        part = slice(first, first + step)
        weights = _weights(query[:, :, part], key)
        if weighting is not None:
            value, gradient = weighting
            weights = (weights * (gradient[:, :, part].float() @ value.float().transpose(2, 3))).clamp(min=0)
        result += torch.einsum("bi,bhij->bj", row[:, part], weights) / heads
    return result
