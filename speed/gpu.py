"""ViT-B-16 on a GPU: a training step of StPR with and without distillation, for whoever has one.

bf16, 40 clips of 8 frames, the paper's batch, as ``vcil-bench doctor`` measures it.
"""

from __future__ import annotations

import torch
from common import Row, hand_over, machine

from vcil_bench.doctor.step import measure, parser


def main() -> None:
    """Measure and hand over; on a CPU with a small backbone, to see that it works."""
    options = parser().parse_args()
    device = torch.device(options.device)
    figures = measure(options.backbone, device, options.precision, options.batch, compiled=options.compile)
    how = f"{options.backbone}, {options.precision}, {options.batch} clips of 8 frames"
    hand_over([Row("machine", machine(device)), *(Row(what, figure, note=how) for what, figure in figures)])


if __name__ == "__main__":
    main()
