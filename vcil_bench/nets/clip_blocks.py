"""One block of open_clip's visual tower in its own parts and order, computed as cheaply as its weights allow.

The weights are frozen, so that blocks in front of the first adapter need no gradient at all; behind it only the
tokens do.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn

QUICK = 1.702  # QuickGELU is x * sigmoid(1.702 x)


def frozen_block(block: ResidualAttentionBlock, x: Tensor) -> tuple[Tensor, Tensor]:
    """Run one block without an adapter.

    Args:
        block: Of open_clip.
        x: Tokens [N, L, width].

    Returns:
        The tokens in front of the MLP, which an adapter beside it takes, and the block's output, to which the
        adapter's is added.
    """
    before = _sum(x, block.ls_1(_attention(block, block.ln_1(x))))
    return before, _sum(before, block.ls_2(_mlp(block, block.ln_2(before))))


def class_token_block(block: ResidualAttentionBlock, x: Tensor) -> tuple[Tensor, Tensor]:
    """Run the last block as far as the class token needs it, which alone becomes the frame feature.

    Equal to ``frozen_block`` up to rounding, at a sixth of its cost: keys and values are all that patches give.

    Args:
        block: Of open_clip.
        x: Tokens [N, L, width].

    Returns:
        As ``frozen_block``, of the class token [N, 1, width].
    """
    attn: nn.MultiheadAttention = block.attn
    width, heads = x.shape[2], attn.num_heads
    normed = block.ln_1(x)
    query = F.linear(normed[:, :1], attn.in_proj_weight[:width], attn.in_proj_bias[:width])
    packed = F.linear(normed, attn.in_proj_weight[width:], attn.in_proj_bias[width:])
    query = query.unflatten(2, (heads, -1)).transpose(1, 2)  # [N, heads, 1, width / heads]
    key, value = packed.unflatten(2, (2, heads, -1)).permute(2, 0, 3, 1, 4)
    seen = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    before = x[:, :1] + block.ls_1(attn.out_proj(seen))
    return before, before + block.ls_2(_mlp(block, block.ln_2(before)))


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
