"""Trains the bundled model: ``weir model train-mini`` (after ``python -m workers.mini.material``).

Stages, each resumable where it was cut off: the tower learns to see; the language part learns to answer with an
imagined eye; then with what the tower really sees; then the checkpoint is written. See README.md for what came of it.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from transformers import PreTrainedTokenizerFast

from workers.mini.language import LanguagePlan, Probes, train_language
from workers.mini.lasting import Lasting, OtherOptionsError
from workers.mini.material import FOLDER, MaterialError, Split
from workers.mini.meanings import common, meanings
from workers.mini.network import average, build, carry_over, save, set_tower, tower_of
from workers.mini.scenes import CROWD
from workers.mini.sights import Sights
from workers.mini.tower import Composed, Seer, TowerPlan, ahead, as_input, train_tower
from workers.mini.vocabulary import COMMON, tokenizer

HERE = Path(__file__).parent

#: Where fetched archives are kept.
PACKS = FOLDER / "packs"

#: Steps of each stage at full length.
STEPS = {"tower": 5_000, "oracle": 3_000, "seeing": 6_000}

#: Where everything is trained: on the GPU if there is one.
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

#: How many uploads a step of the language part has, and its highest rate; likewise scenes and rate of the tower.
UPLOADS, RATE = {"cpu": 8, "cuda": 64}, {"cpu": 8e-4, "cuda": 1.5e-3}
ORACLE_RATE = 2e-3
SCENES, TOWER_RATE = {"cpu": 16, "cuda": 64}, {"cpu": 2e-3, "cuda": 3e-3}


def eye(run: Path) -> Seer:
    """Return the trained tower."""
    seer = Seer()
    seer.load_state_dict(torch.load(run / "tower.pt", weights_only=True, map_location="cpu"))
    return seer.to(DEVICE).eval()


def vocabulary(run: Path) -> PreTrainedTokenizerFast:
    """Return the run's tokenizer, trained once."""
    folder = run / "tokenizer"
    if not folder.exists():
        tokenizer(common(PACKS, COMMON)).save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def look(seer: Seer, path: Path, *, split: Split, seed: int, count: int, composers: int) -> Path:
    """Keep what the tower says of many new scenes, so that the language part learns from it again and again."""
    if path.exists():
        return path
    outputs, shown = [], []
    composed = Composed(split, seed=seed, size=50, crowd=CROWD)
    parts = -(-count // 50)
    for scenes in track(
        ahead(composed, range(parts), composers), f"looking at {split} scenes", total=parts
    ):
        with torch.no_grad():
            pixels = as_input(np.stack([scene.pixels for scene in scenes]), seer.device)
            outputs.append(seer(pixels).sigmoid().cpu().numpy().astype(np.float16))
        shown += [scene.shown for scene in scenes]
    Sights(np.concatenate(outputs)[:count], shown[:count]).save(path)
    return path


def digest(file: Path) -> str:
    """Return a short name of what a file holds."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def oracle(run: Path, lasting: Lasting, *, seed: int, rate: float | None, processes: int) -> Path:
    """Teach the language part with an imagined eye."""
    words = vocabulary(run)
    torch.manual_seed(seed)
    plan = LanguagePlan(
        name="oracle",
        steps=lasting.steps,
        minutes=lasting.minutes,
        teachers=processes,
        uploads=UPLOADS[DEVICE],
        seed=seed + 4,
        rate=rate or ORACLE_RATE,
        reasons=0.15,
    )
    return train_language(build(words).to(DEVICE), words, run, plan)


def seeing(
    run: Path,
    lasting: Lasting,
    *,
    scenes: int,
    seed: int,
    rate: float | None = None,
    processes: int = 1,
    start_from: Path | None = None,
) -> Path:
    """Teach the language part on what the tower sees, from an earlier checkpoint or from the imagined eye's stage."""
    words = vocabulary(run)
    if start_from is not None and not (run / "tower.pt").exists():
        torch.save(tower_of(start_from).state_dict(), run / "tower.pt")
    seer, tower = eye(run), digest(run / "tower.pt")
    looks: tuple[tuple[Split, int, int], ...] = (("train", 501, scenes), ("validation", 502, 160))
    seen, checked = (
        look(
            seer,
            # Another tower sees other things.
            run / f"seen-{split}-{count}-{tower}.npz",
            split=split,
            seed=number,
            count=count,
            composers=processes,
        )
        for split, number, count in looks
    )
    model, probes = build(words), Probes()
    if start_from is None:
        begun_from = run / "oracle.pt"
        state = torch.load(begun_from, weights_only=True, map_location="cpu")
        model.load_state_dict(state["model"])
        probes.load_state_dict(state["probes"])
    else:
        begun_from = start_from / "model.safetensors"
        carry_over(model, words, start_from, partial(meanings, packs=PACKS))
    set_tower(model, seer)
    model.to(DEVICE)
    plan = LanguagePlan(
        name="seeing",
        steps=lasting.steps,
        minutes=lasting.minutes,
        begun_from=digest(begun_from),
        teachers=processes,
        uploads=UPLOADS[DEVICE],
        seed=seed + 5,
        rate=rate or RATE[DEVICE],
        decay_from=0.3,
        seen=seen,
        checked=checked,
        # Much of what it sees stays imagined: on real sights alone it forgets wordings that it once understood.
        imagine=0.3,
        explain=0.2,
        reasons=0.1,
        weights={"answer": 1.0, "reply": 0.4, "noun": 0.6, "clause": 0.6},
    )
    return train_language(model, words, run, plan, probes)


def export(run: Path, folder: Path, *, mean_with: Path | None = None) -> None:
    """Write the checkpoint as transformers reads it, or the mean of its weights and those of another one."""
    words = vocabulary(run)
    model = build(words)
    model.load_state_dict(
        torch.load(run / "seeing.pt", weights_only=True, map_location="cpu")["model"]
    )
    set_tower(model, eye(run))
    if mean_with is not None:
        average(model, words, mean_with)
    save(model, words, folder)


def curves(run: Path, path: Path) -> None:
    """Draw the learning curves: the tower's, or how well wordings are understood; then all language stages' loss."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
    logs = sorted(run.glob("*.jsonl"), key=lambda log: log.stat().st_mtime)
    before = 0
    towered = (run / "tower.jsonl").exists()
    for log in logs:
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        steps = [line["step"] for line in lines]
        if log.stem == "tower":
            for key, words in (("median", "median"), ("p10", "10th percentile")):
                axes[0].plot(steps, [line[key] for line in lines], label=words)
            continue
        places = [before + step for step in steps]
        examined = [(at, line) for at, line in zip(places, lines, strict=True) if "unseen" in line]
        for key in () if towered else ("seen", "unseen"):
            points = [line[key] for _, line in examined]
            axes[0].plot([at for at, _ in examined], points, label=f"{key} wordings")
        axes[1].plot(places, [line["answer"] for line in lines], label=f"{log.stem}")
        before = places[-1]
    axes[0].set(
        title="tower: AUROC per concept, validation style"
        if towered
        else "AUROC, validation style",
        ylim=(0.45 if towered else 0.7, 1.0),
    )
    axes[1].set(title="language: loss of answers, in training", ylim=(0.2, 1.0))
    for axis in axes:
        axis.set_xlabel("step")
        axis.legend(fontsize=6)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def main(arguments: Sequence[str] | None = None, *, name: str | None = None) -> None:
    """Run the stages that are left."""
    parser = argparse.ArgumentParser(prog=name, description=__doc__)
    parser.add_argument(
        "--run", type=Path, default=HERE / "runs" / "a", help="folder of states and logs"
    )
    parser.add_argument(
        "--stage", choices=["tower", "oracle", "seeing", "export", "curves", "all"], default="all"
    )
    parser.add_argument(
        "--small", action="store_true", help="a twentieth of the steps: to see that it runs"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=2,
        help="cores to use (to compose scenes, where a GPU learns); without a GPU only 1 gives the same tower again",
    )
    parser.add_argument(
        "--scenes",
        type=int,
        default=6_000,
        help="scenes that the tower looks at once for the language part",
    )
    parser.add_argument(
        "--out", type=Path, help="folder of the checkpoint; `checkpoint` in the run's by default"
    )
    parser.add_argument(
        "--start-from",
        type=Path,
        help="folder of a checkpoint to go on from, such as workers/mini, without the stage of the imagined eye",
    )
    parser.add_argument(
        "--mean-with",
        type=Path,
        help="folder of a checkpoint whose weights are averaged with the run's when it is exported",
    )
    parser.add_argument("--steps", type=int, help=f"steps of each chosen stage; by default {STEPS}")
    parser.add_argument(
        "--minutes", type=float, help="how long each chosen stage lasts, instead of steps"
    )
    parser.add_argument("--rate", type=float, help="the highest learning rate of a stage")
    parser.add_argument("--seed", type=int, default=7)
    chosen = parser.parse_args(arguments)
    try:
        _train(chosen)
    except (FileNotFoundError, MaterialError, OtherOptionsError) as error:
        sys.exit(f"Error: {error}")


def _train(chosen: argparse.Namespace) -> None:
    out = chosen.out or chosen.run / "checkpoint"
    torch.set_num_threads(chosen.threads)
    share = 20 if chosen.small else 1
    wanted = (
        {"tower", "oracle", "seeing", "export", "curves"}
        if chosen.stage == "all"
        else {chosen.stage}
    )
    if chosen.start_from is not None:
        wanted.discard("oracle")
    chosen.run.mkdir(parents=True, exist_ok=True)
    on_gpu = DEVICE == "cuda"
    composers = chosen.threads if on_gpu else 1

    def lasting(stage: str) -> Lasting:
        steps = chosen.steps or max(40, STEPS[stage] // share)
        return Lasting(steps=steps, minutes=chosen.minutes)

    if "tower" in wanted:
        begun_from = chosen.start_from / "model.safetensors" if chosen.start_from else None
        plan = TowerPlan(
            steps=lasting("tower").steps,
            minutes=chosen.minutes,
            begun_from=digest(begun_from) if begun_from else "",
            batch=SCENES[DEVICE],
            rate=chosen.rate or TOWER_RATE[DEVICE],
            seed=chosen.seed,
            learners=1 if on_gpu else chosen.threads,
            device=DEVICE,
            composers=composers if on_gpu else 0,
            log_every=600 if on_gpu else 150,
        )
        earlier = tower_of(chosen.start_from) if chosen.start_from else None
        train_tower(chosen.run, plan, start_from=earlier)
    taught = {"seed": chosen.seed, "rate": chosen.rate, "processes": composers}
    if "oracle" in wanted:
        oracle(chosen.run, lasting("oracle"), **taught)
    if "seeing" in wanted:
        seeing(
            chosen.run,
            lasting("seeing"),
            scenes=max(64, chosen.scenes // share),
            start_from=chosen.start_from,
            **taught,
        )
    if "export" in wanted:
        export(chosen.run, out, mean_with=chosen.mean_with)
    if "curves" in wanted:
        curves(chosen.run, out / "curves.png")


if __name__ == "__main__":
    main()
