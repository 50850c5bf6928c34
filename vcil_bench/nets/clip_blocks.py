"""One block of open_clip's visual tower in its own parts and order, computed as cheaply as its weights allow.

The weights are frozen, so that blocks in front of the first adapter need no gradient at all; behind it only the
tokens do.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

QUICK = 1.702  # QuickGELU is x * sigmoid(1.702 x)
CLASS_TOKEN = slice(0, 1)  # where it stands when there are no prompts in front of it


def frame_tokens(visual: VisionTransformer, images: Tensor) -> Tensor:
    """Return the tokens of images as they are before the first norm.

    Args:
        visual: Of open_clip.
        images: [B, 3, S, S], normalised.

    Returns:
        [B, 1 + patches, width], the class token first.
    """
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    first = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
    tokens: Tensor = torch.cat([first, patches], dim=1) + visual.positional_embedding.to(patches.dtype)
    return tokens


def frozen_block(
    block: ResidualAttentionBlock, x: Tensor, prefix: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Run one block without an adapter.

    Args:
        block: Of open_clip.
        x: Tokens [N, L, width].
        prefix: Keys and values in front of the tokens' own [N or 1, 2, P, width], None for none.

    Returns:
        The tokens in front of the MLP, which an adapter beside it takes, and the block's output, to which the
        adapter's is added.
    """
    normed = block.ln_1(x)
    if prefix is None:
        seen = _attention(block, normed)
    else:
        seen = prefix_attention(block.attn, normed, prefix[:, 0], prefix[:, 1])
    before = _sum(x, block.ls_1(seen))
    return before, _sum(before, block.ls_2(_mlp(block, block.ln_2(before))))


def class_token_block(
    block: ResidualAttentionBlock, x: Tensor, prefix: Tensor | None = None, read: slice = CLASS_TOKEN
) -> tuple[Tensor, Tensor]:
    """Run the last block as far as the tokens need it that become the frame feature, by default the class token.

    Equal to ``frozen_block`` up to rounding, at a sixth of its cost: keys and values are all that patches give.

    Args:
        block: Of open_clip.
        x: Tokens [N, L, width].
        prefix: As in ``frozen_block``.
        read: Places of those tokens, R of them.

    Returns:
        As ``frozen_block``, of these tokens [N, R, width].
    """
    attn: nn.MultiheadAttention = block.attn
    width, heads = x.shape[2], attn.num_heads
    normed = block.ln_1(x)
    query = F.linear(normed[:, read], attn.in_proj_weight[:width], attn.in_proj_bias[:width])
    packed = F.linear(normed, attn.in_proj_weight[width:], attn.in_proj_bias[width:])
    query = query.unflatten(2, (heads, -1)).transpose(1, 2)  # [N, heads, R, width / heads]
    key, value = packed.unflatten(2, (2, heads, -1)).permute(2, 0, 3, 1, 4)
    if prefix is not None:
        key, value = _behind(prefix[:, 0], key), _behind(prefix[:, 1], value)
    seen = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    before = x[:, read] + block.ls_1(attn.out_proj(seen))
    return before, before + block.ls_2(_mlp(block, block.ln_2(before)))


def prefix_attention(
    attention: nn.MultiheadAttention,
    x: Tensor,
    key_prefix: Tensor | None = None,
    value_prefix: Tensor | None = None,
) -> Tensor:
    """Self-attention with more keys and values in front of the tokens' own (prefix tuning).

    They enter behind the projection. Queries come from the tokens alone, so that as many come out as go in.
    Source: Wang et al. 2022 (DualPrompt), Eq. 4.

    Args:
        attention: Batch first, with one projection for queries, keys and values.
        x: Tokens [N, L, width].
        key_prefix: [N or 1, P, width], the heads side by side; None for none.
        value_prefix: The same for values.

    Returns:
        [N, L, width].
    """
    packed = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    query, key, value = packed.unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    if key_prefix is not None:
        key = _behind(key_prefix, key)
    if value_prefix is not None:
        value = _behind(value_prefix, value)
    seen = F.scaled_dot_product_attention(query, key, value)  # [N, heads, L, width / heads]
    return attention.out_proj(seen.transpose(1, 2).flatten(2))


def _behind(prefix: Tensor, rows: Tensor) -> Tensor:
    """Put keys or values [N, heads, L, width / heads] behind a prefix [N or 1, P, width]."""
    count, heads = rows.shape[:2]
    front = prefix.to(rows.dtype).unflatten(2, (heads, -1)).transpose(1, 2)
    return torch.cat([front.expand(count, -1, -1, -1), rows], dim=2)


def _sum(x: Tensor, update: Tensor) -> Tensor:
    """Add what a part of the block has just computed; without gradients, in its memory."""
    return x + update if x.requires_grad else update.add_(x)


def _attention(block: ResidualAttentionBlock, x: Tensor) -> Tensor:
    """Self-attention, bit for bit what ``nn.MultiheadAttention`` gives with the same gradients and precision.

    Its own way through training and through autocast transposes to [L, N, width] and back and casts frozen
    weights at every use; without either it has a fast one, which is taken.
    """
    if not x.requires_grad and x.dtype == torch.float32:
        return block.attention(x)
    attn: nn.MultiheadAttention = block.attn
    count, length, width = x.shape
    heads = attn.num_heads
    packed = F.linear(x, attn.in_proj_weight, attn.in_proj_bias)
    query, key, value = packed.view(count, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    seen = F.scaled_dot_product_attention(query, key, value)  # [N, heads, L, width / heads]
    return attn.out_proj(seen.transpose(1, 2).reshape(count, length, width))


def _mlp(block: ResidualAttentionBlock, x: Tensor) -> Tensor:
    """Run the MLP; without gradients QuickGELU needs no memory but its input's."""
    if x.requires_grad or not isinstance(block.mlp.gelu, QuickGELU):
        return block.mlp(x)
    hidden = block.mlp.c_fc(x)
    return block.mlp.c_proj((QUICK * hidden).sigmoid_().mul_(hidden))


def attend(block: ResidualAttentionBlock, x: Tensor) -> Tensor:
    """Return what a block's attention adds to the tokens, of the normed tokens [N, L, width]."""
    return block.ls_1(_attention(block, x))


def feed_forward(block: ResidualAttentionBlock, x: Tensor) -> Tensor:
    """Return what a block's MLP adds to the tokens, of the normed tokens [N, L, width]."""
    return block.ls_2(_mlp(block, x))
