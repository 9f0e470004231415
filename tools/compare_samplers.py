"""How near the photos images come, and in what time, by every sampler and few steps.

python -m tools.compare_samplers
python -m tools.compare_samplers models/Best_diffusion_16.pkl --data flowers_16

From the same noise, of the same species, every sampler draws images by WEIGHTS, without
guidance, in about as many evaluations of the network as each of --evaluations; the
reference is the ancestral chain of all the model's steps. log/steps_NAME.json is
written after every point, and vis/steps_NAME.png at the end. Points that are there are
kept, unless weights, photos, seed, count, code or machine were others.
"""

import json
import logging
import shlex
import sys
from pathlib import Path

from utils.cli import PROJECT, run
from utils.cli.arguments import command_line, whole_number

FLAGS = "--count --seed --extractor --data --strict-data --out"
EVALUATIONS = (4, 6, 8, 10, 12, 16, 24, 40)
CODE = ("diffusion.py", "tools/steps.py", "utils/denoiser.py", "utils/metrics.py")
CODE += ("utils/noise.py", "utils/samplers.py", "utils/sampling.py", "utils/trials.py")
CODE += ("utils/unet.py", "utils/yardsticks.py")
log = logging.getLogger(__name__)


def parse(argv):
    """Return the checked command line."""
    parser = command_line(__doc__, *FLAGS.split(), count=2000)
    usual = " ".join(map(str, EVALUATIONS))
    parser.add_argument(
        "weights",
        type=Path,
        nargs="?",
        metavar="WEIGHTS",
        help="of a diffusion model (default: models/Best_diffusion.pkl)",
    )
    parser.add_argument(
        "--evaluations",
        type=whole_number(1, 10_000),
        nargs="+",
        default=list(EVALUATIONS),
        metavar="N",
        help=f"of the network, at most (default: {usual})",
    )
    return parser.parse_args(argv)


# What is measured ----------------------------------------------------------------


def steps_within(sampler, evaluations, longest):
    """Return the most steps of a sampler within so many evaluations of the network.

    longest: steps of the model's own schedule, more of which no ancestral chain has.
    """
    if sampler == "heun":  # 2 a step, 1 in the last
        return (evaluations + 1) // 2
    return min(evaluations, longest) if sampler == "ddpm" else evaluations


def points_asked(evaluations, longest):
    """Return [(sampler, steps), ...], each once, the reference first."""
    from utils.diffusion.samplers import SAMPLERS

    points = [("ddpm", longest)]
    for sampler in SAMPLERS:
        points += [(sampler, steps_within(sampler, n, longest)) for n in evaluations]
    return list(dict.fromkeys(points))


def facts_of(args, weights, about, data):
    """Return all that a point depends on, of plain types.

    about: the description of the weights; data: that of the photos.
    """
    from utils.experiment import fingerprint, machine_facts, weights_facts

    features = Path(args.extractor)
    return {
        "weights": weights_facts(weights, about),
        "data": data,
        "extractor": fingerprint(features) if features.is_file() else str(features),
        "count": args.count,
        "seed": args.seed,
        "code": fingerprint(*(PROJECT / name for name in CODE)),
        "machine": machine_facts(),
    }


def measured(model, sampler, steps, start, judge):
    """Draw and compare -> the facts of one point."""
    from utils.diffusion.sampling import Sampling
    from utils.evaluation.evaluate import draw

    drawn = draw(model, Sampling(sampler, steps, guidance=1.0), start)
    return {
        "sampler": sampler,
        "steps": steps,
        "evaluations": drawn.evaluations,
        "seconds_per_image": drawn.seconds,
        **judge.distances(drawn.images),
    }


# What is kept --------------------------------------------------------------------


def points_kept(path, facts):
    """Return {(sampler, steps): point} of an earlier run with the same facts."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
        same = found["facts"] == json.loads(json.dumps(facts))
        points = {(p["sampler"], p["steps"]): p for p in found["points"]}
    except (ValueError, KeyError, TypeError):
        log.warning("%s is damaged; it is written anew", path)
        return {}
    if not same:
        log.warning("%s is of another run; it is written anew", path)
    return points if same else {}


def keep(path, command, facts, points):
    """Write all points, whole or not at all."""
    from utils.checkpoint import replace_file

    found = {"command": command, "facts": facts, "points": list(points.values())}
    replace_file(path, [(json.dumps(found, indent=1) + "\n").encode()])


# What is told --------------------------------------------------------------------


def table(points, evaluations, longest):
    """{(sampler, steps): point} -> lines: a row per sampler, a column per number.

    Another number of evaluations than the column's stands in brackets.
    """
    samplers = dict.fromkeys(name for name, _ in points_asked(evaluations, longest))
    lines = ["sampler   " + "".join(f"{number:>12}" for number in evaluations)]
    for sampler in samplers:
        row = [
            (points[sampler, steps_within(sampler, number, longest)], number)
            for number in evaluations
        ]
        lines.append(f"{sampler:<10}" + "".join(f"{cell(*of):>12}" for of in row))
    reference = points["ddpm", longest]
    told = "reference: ddpm, {evaluations} evaluations, {seconds_per_image:.3g} s/image"
    return [*lines, f"{told.format(**reference)}: {cell(reference)}"]


def cell(point, evaluations=None):
    """Write the distance of a point."""
    words, counted = f"{point['frechet'][0]:.4g}", point["evaluations"]
    return words if evaluations in (None, counted) else f"{words} ({counted})"


def draw_figure(points, longest, path, title):
    """Draw the points, that of the reference as a line across."""
    from utils.figures import save_steps

    curves = {}
    for (sampler, steps), point in points.items():
        place = point["evaluations"], point["frechet"][0], point["seconds_per_image"]
        if (sampler, steps) == ("ddpm", longest):
            reference = place
        else:
            curves.setdefault(sampler, []).append(place)
    name = f"ddpm, {reference[0]} evaluations"
    save_steps(curves, (name, *reference[1:]), path, title)


def main(argv=None):
    args = parse(argv)
    words = sys.argv[1:] if argv is None else argv
    command = shlex.join(["python", "-m", "tools.compare_samplers", *words])

    import numpy  # noqa: F401  (inside torch's own import it would swallow a Ctrl-C)

    from utils.checkpoint import find_weights, prepare_target
    from utils.evaluation.evaluate import judge_for, start_of, warm_up
    from utils.figures import caption
    from utils.registry import load_diffusion

    weights = args.weights or find_weights(PROJECT, "diffusion")
    model, about = load_diffusion(weights)
    judge = judge_for(args, about)
    name = weights.stem.removeprefix("Best_")
    path = prepare_target(args.out / "log" / f"steps_{name}.json")
    facts = facts_of(args, weights, about, judge.data)
    points = points_kept(path, facts)
    start = start_of(about, args.count, args.seed)
    warm_up(model, start)
    for sampler, steps in points_asked(args.evaluations, model.n_steps):
        if (sampler, steps) not in points:
            points[sampler, steps] = measured(model, sampler, steps, start, judge)
            keep(path, command, facts, points)
    title = caption(name, f"{args.count} samples, without guidance", about)
    figure = args.out / "vis" / f"steps_{name}.png"
    draw_figure(points, model.n_steps, figure, title)
    print("\n".join(table(points, args.evaluations, model.n_steps)))


if __name__ == "__main__":
    run(main)
