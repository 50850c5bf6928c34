"""What testing costs with 1, 6 and 26 experts, the numbers of tasks that the protocols have."""

from __future__ import annotations

from statistics import median

import torch
from common import Row, alternate, hand_over, ratio

from vcil_bench.doctor.steady import SteadyClips, stpr, trunk_of

BACKBONE, BATCH, ROUNDS = "clip_vit_b16", 2, 5


def main() -> None:
    """Measure and hand over."""
    device = torch.device("cpu")
    trunk = trunk_of(BACKBONE, device)
    loader = SteadyClips(BATCH, 1, device)
    ways = {}
    for experts in (1, 6, 26):
        method, _ = stpr(trunk, loader, device, tasks=experts)
        method.eval()
        method.anchors.normal_()
        ways[str(experts)] = lambda method=method: _predict(method, loader)
    times = alternate(ways, ROUNDS)
    how = f"ViT-B-16, {BATCH} clips of 8 frames of 224 pixels, fp32; median of {ROUNDS} rounds"
    rows = [Row("testing with 1 expert", f"{median(times['1']):.2f} s", note=how)]
    for experts in ("6", "26"):
        cost = ratio(times, experts, "1")
        goal = ("<= 1.2", cost <= 1.2) if experts == "26" else ("", None)
        rows.append(Row(f"{experts} experts against 1", f"{cost:.2f}", *goal))
    hand_over(rows)


@torch.inference_mode()
def _predict(method, loader: SteadyClips) -> None:  # type: ignore[no-untyped-def]
    method.predict(loader.clips)


if __name__ == "__main__":
    main()
