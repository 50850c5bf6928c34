"""PIVOT's formulas against its authors' code: contrast, prediction of tasks, third phase, memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from golden_files import DTYPES, close, golden, tensors

from vcil_bench.data.clips import segment_indices
from vcil_bench.losses import contrastive_loss
from vcil_bench.methods.pivot import predict_tasks


@DTYPES
def test_the_contrast_in_a_batch_equals_the_authors(precision: str) -> None:
    data = tensors("piv_03", precision)
    video = data["video"].requires_grad_()
    texts = F.normalize(data["class_text"], dim=-1)
    scale = float(data["logit_scale"])
    loss = contrastive_loss(F.normalize(video, dim=-1), texts, data["labels"], scale=scale, negatives="batch")
    close(loss, data["loss"])
    loss.backward()
    close(video.grad, data["grad_video"])
    nearest = (F.normalize(video, dim=-1) @ texts.T).argmax(dim=1)
    assert 100 * (nearest == data["labels"]).double().mean() == float(golden("piv_03")["accuracy_percent"])


@DTYPES
def test_the_predicted_tasks_equal_the_authors(precision: str) -> None:
    data = tensors("piv_04", precision)
    tasks = predict_tasks(data["video"], data["class_text"], data["task_of_class"])
    assert tasks.tolist() == data["selected_task"].tolist()


def test_a_class_that_is_not_learnt_names_no_task() -> None:
    texts = torch.eye(3)
    video = torch.tensor([[0.1, 0.2, 5.0]])
    assert predict_tasks(video, texts, torch.tensor([4, 7, -1])).tolist() == [7]
    assert predict_tasks(video, texts, torch.tensor([4, 7, 9])).tolist() == [9]
    assert predict_tasks(-video, texts, torch.tensor([-1, 7, 9])).tolist() == [7]


@DTYPES
def test_the_contrast_of_the_third_phase_equals_the_authors(precision: str) -> None:
    """Clips of classes that have prompts enter twice, those of the others once."""
    data = tensors("piv_05", precision)
    labels = data["phase3_labels"]
    learnt = labels < 2
    video = torch.cat([data["emb_prompted"], data["emb_plain"], data["emb_new"]])
    loss = contrastive_loss(
        F.normalize(video, dim=-1),
        F.normalize(data["phase3_class_text"], dim=-1),
        torch.cat([labels[learnt], labels[learnt], labels[~learnt]]),
        scale=float(data["phase3_logit_scale"]),
        negatives="batch",
    )
    close(loss, data["phase3_loss"])


def test_where_a_memory_keeps_some_frames_they_are_the_authors() -> None:
    data = golden("piv_05")
    kept = int(data["frames_kept"])
    for num_frames, frames in zip(data["num_frames"], data["kept_frame_indices"], strict=True):
        assert segment_indices(int(num_frames), kept).tolist() == frames.tolist()
