"""Prompt methods against their authors' code: CODA-Prompt, S-iPrompts, and the loss of L2P."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from golden_files import DTYPES, close, tensors
from torch import nn

from vcil_bench.losses import task_cross_entropy
from vcil_bench.methods.coda_prompt import compose, gram_schmidt, orthogonality
from vcil_bench.methods.sprompts import task_centres, task_distances
from vcil_bench.nets.clip_blocks import prefix_attention
from vcil_bench.nets.prompts import prompt_similarity, select_prompts

# --- L2P


@DTYPES
@pytest.mark.parametrize("masked", [False, True])
def test_l2ps_loss(masked: bool, precision: str) -> None:
    g = tensors("l2p_23", precision)
    chosen = select_prompts(g["cls_features"], g["prompt_key"], int(g["top_k"]))
    pull = g["pull_coeff"] * prompt_similarity(g["cls_features"], g["prompt_key"], chosen)
    classes = g["current_task_classes"].tolist() if masked else range(g["logits"].shape[1])
    loss = task_cross_entropy(g["logits"], g["labels"], classes) - pull
    close(loss.to(g["logits"]), g[f"own_total_loss_{'masked' if masked else 'unmasked'}"])


# --- CODA-Prompt


@DTYPES
@pytest.mark.parametrize("task", [0, 1, 2])
def test_codas_prefixes_their_loss_and_its_gradients(task: int, precision: str) -> None:
    g = tensors("coda_37", precision)
    width, heads = g["proj_weight"].shape[0], int(g["num_heads"])
    attention = nn.MultiheadAttention(width, heads, batch_first=True, dtype=g["x"].dtype)
    attention.load_state_dict(
        {
            "in_proj_weight": g["qkv_weight"],
            "in_proj_bias": g["qkv_bias"],
            "out_proj.weight": g["proj_weight"],
            "out_proj.bias": g["proj_bias"],
        }
    )
    attention.requires_grad_(False)
    share = len(g["K"]) // int(g["num_tasks"])
    old, upto = task * share, (task + 1) * share
    whole = {name: g[name].requires_grad_() for name in "KAP"}
    rows = [torch.cat([rows[:old].detach(), rows[old:upto]]) for rows in whole.values()]
    key, value = compose(g["query"], *rows).chunk(2, dim=1)
    seen = prefix_attention(attention, g["x"], key, value)
    apart = g["ortho_mu"] * sum(orthogonality(each.flatten(1)) for each in rows)
    for mode in ("train", "test"):  # nothing differs at test
        close(key, g[f"task{task}_{mode}_Ek"])
        close(value, g[f"task{task}_{mode}_Ev"])
        close(seen, g[f"task{task}_{mode}_attention"])
    close(apart.to(seen), g[f"task{task}_train_ortho_loss"])
    gradients = torch.autograd.grad(seen.square().sum() + apart, list(whole.values()))
    for name, gradient in zip("KAP", gradients, strict=True):
        close(gradient, g[f"task{task}_train_sumsq_plus_ortho_grad_{name}"])


@DTYPES
@pytest.mark.parametrize("name", ["K", "P"])
def test_codas_new_components_are_orthogonal_to_the_old(name: str, precision: str) -> None:
    g = tensors("coda_37", precision)
    rows = g[name].flatten(1)
    share = len(rows) // int(g["num_tasks"])
    found = torch.cat([rows[:share], gram_schmidt(rows[:share], g[f"gs_draws_{name}"])])
    expected = g[f"gs_task1_{name}"].flatten(1)
    close(found, expected[: 2 * share])
    assert not expected[2 * share :].any()


def test_new_rows_are_orthonormal_where_the_old_ones_are() -> None:
    draws = torch.randn(6, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first = gram_schmidt(draws[:0], draws[:3])
    both = torch.cat([first, gram_schmidt(first, draws[3:])])
    torch.testing.assert_close(both @ both.T, torch.eye(6, dtype=torch.float64))
    assert float(orthogonality(both)) < 1e-20


# --- S-iPrompts


@DTYPES
def test_sprompts_choice_of_the_task(precision: str) -> None:
    g = tensors("sprompts_22", precision)
    centres = list(g["centers"])
    distances = task_distances(g["features_raw"], centres)
    close(distances, g["l1_distance_min_per_task"])
    chosen = distances.argmin(dim=1)
    assert torch.equal(chosen, g["task_selection"])
    euclidean = task_distances(g["features_raw"], centres, norm=2).argmin(dim=1)
    assert torch.equal(euclidean, g["own_task_selection_l2"])
    assert not torch.equal(chosen, euclidean)
    prompted = g["features_raw"] + g["prompts"].mean(dim=1)[chosen]
    logits = torch.einsum("bd,bcd->bc", prompted, g["head_weight"][chosen]) + g["head_bias"][chosen]
    close(logits, g["selected_logits"])
    close(F.normalize(g["features_raw"], dim=1), g["features_normalized"])


@DTYPES
def test_sprompts_centres(precision: str) -> None:
    g = tensors("sprompts_38", precision)
    features = g["features"][g["labels"] >= g["num_known_classes"]]
    centres = task_centres(features)
    close(centres[centres[:, 0].argsort()], g["centers_sorted_by_first_coordinate"])


def test_a_task_of_fewer_videos_than_centres_has_fewer() -> None:
    features = torch.eye(4)[[0, 1, 1]]
    assert task_centres(features, k=5).shape == (2, 4)


@pytest.mark.parametrize("norm", [1, 2])
def test_how_far_a_query_is_from_a_task_does_not_hang_on_the_queries_beside_it(norm: int) -> None:
    """Queries of one network lie near each other, where distances by a product of matrices lose their digits."""
    random = torch.Generator().manual_seed(1)
    middle = torch.randn(64, generator=random) + 3
    queries, *centres = (middle + 0.02 * torch.randn(rows, 64, generator=random) for rows in (64, 5, 5, 5))
    together = task_distances(queries, centres, norm)
    alone = torch.cat([task_distances(query[None], centres, norm) for query in queries])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-7)
