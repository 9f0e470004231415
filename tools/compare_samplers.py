"""Compare samplers: Frechet distance and time against network evaluations.

python -m tools.compare_samplers
python -m tools.compare_samplers models/Best_diffusion_64.pkl --data flowers_16

Every sampler generates images of the same species from the same noise, without
guidance, in at most each of the --nfe numbers of network evaluations. All stop at the
same noise level, --sigma-min, and estimate the image there; "flow" alone has its own
last level. The reference is the ancestral sampler with all steps of the model's
schedule down to that level; the whole schedule is a further point. Writes
log/compare_samplers_NAME.json after every point, and vis/compare_samplers_NAME.png.
"""

import shlex
import sys
from pathlib import Path

from utils.cli import guard, run
from utils.cli.arguments import command_line, whole_number
from utils.config import SamplerConfig, fields_named

FLAGS = "--count --seed --extractor --data --strict-data --device --out"
NFE = (4, 6, 8, 10, 12, 16, 24, 40)
LINE = "{sampler}, {steps} steps, NFE {nfe}: Frechet distance {frechet[0]:.4g}, "
LINE += "{seconds_per_image:.3g} s per image"


def parse(argv=None):
    """Return the checked command line."""
    settings = fields_named(SamplerConfig, "sigma_min")
    parser = command_line(__doc__, *FLAGS.split(), settings=settings, count=2000)
    # The weights are a positional argument, since any diffusion model will do.
    parser.add_argument(
        "weights",
        type=Path,
        nargs="?",
        metavar="WEIGHTS",
        help="of a diffusion model (default: models/Best_diffusion.pkl)",
    )
    parser.add_argument(
        "--nfe",
        type=whole_number(1, 10_000),
        nargs="+",
        default=list(NFE),
        metavar="N",
        help=f"maximum network evaluations (default: {' '.join(map(str, NFE))})",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    guard(parse)

from utils.device import choose_device, machine_facts
from utils.diffusion.samplers import SAMPLERS
from utils.diffusion.sampling import SIGMA_MIN, default_sampler_config, schedule_from
from utils.evaluation.evaluate import (
    draw_start,
    generate_from,
    reference_stats,
    warm_up,
)
from utils.experiment import chosen_weights, fingerprint, weights_facts
from utils.figures import caption, plot_nfe_curves
from utils.files import prepare_target, write_json
from utils.registry import load_diffusion

# The ancestral sampler, whose noise levels are the model's own schedule.
REFERENCE = next(name for name, s in SAMPLERS.items() if s.uses_schedule)


def steps_within(sampler, nfe, max_steps):
    """Return the most steps of a sampler with at most `nfe` network evaluations."""
    # max_steps: of a sampler that uses the model's own schedule.
    row = SAMPLERS[sampler]
    steps = max(s for s in range(1, nfe + 1) if row.nfe(s) <= nfe)
    return min(steps, max_steps) if row.uses_schedule else steps


def points_requested(nfe, max_steps):
    """Return [(sampler, steps), ...] without repetitions, the reference first."""
    points = [(REFERENCE, max_steps)]
    for sampler in SAMPLERS:
        points += [(sampler, steps_within(sampler, n, max_steps)) for n in nfe]
    return list(dict.fromkeys(points))


def facts_of(args, weights, metadata, data):
    """Return everything that a point depends on, in plain types."""
    # metadata: of the weights; data: metadata of the photos.
    features = Path(args.extractor)
    return {
        "weights": weights_facts(weights, metadata),
        "data": data,
        "extractor": fingerprint(features) if features.is_file() else str(features),
        "count": args.count,
        "seed": args.seed,
        "machine": machine_facts(choose_device(args.device)),
    }


def measure(model, config, start, reference):
    """Generate images and return the facts of one point, in plain types."""
    generated = generate_from(model, config, start)
    return {
        "sampler": config.sampler,
        "steps": config.steps,
        "sigma_min": config.sigma_min,
        "nfe": generated.nfe,
        "seconds_per_image": generated.seconds,
        **reference.distances(generated.images),
    }


def save_figure(points, max_steps, path, title):
    """Plot the points; the reference is a horizontal line."""
    curves = {}  # sampler -> [(nfe, distance, seconds per image), ...]
    for (sampler, steps), point in points.items():
        xy = point["nfe"], point["frechet"][0], point["seconds_per_image"]
        if (sampler, steps) == (REFERENCE, max_steps):
            reference = xy
        elif point["sigma_min"]:
            curves.setdefault(sampler, []).append(xy)
    name = f"{REFERENCE}, {reference[0]} evaluations"
    plot_nfe_curves(curves, (name, *reference[1:]), path, title)


def main(argv=None):
    args = parse(argv)
    arguments = sys.argv[1:] if argv is None else argv
    command = shlex.join(["python", "-m", "tools.compare_samplers", *arguments])

    # The model and the photos.
    device = choose_device(args.device)
    weights = chosen_weights(args, "diffusion")
    model, metadata = load_diffusion(weights, device)
    reference = reference_stats(args, metadata)
    name = weights.stem.removeprefix("Best_")
    path = prepare_target(args.out / "log" / f"compare_samplers_{name}.json")
    facts = facts_of(args, weights, metadata, reference.data)

    # One point after the other, each saved at once.
    start, points = draw_start(metadata, args.count, args.seed), {}
    warm_up(model, start, SamplerConfig())
    sigma_min = args.sigma_min or default_sampler_config(metadata).sigma_min
    sigma_min = sigma_min or SIGMA_MIN
    levels = len(schedule_from(model.sigmas, sigma_min))
    requested = [
        SamplerConfig(sampler, steps, sigma_min=sigma_min)
        for sampler, steps in points_requested(args.nfe, levels)
    ]
    for config in [*requested, SamplerConfig(REFERENCE, model.n_steps, sigma_min=0)]:
        key = config.sampler, config.steps
        points[key] = measure(model, config, start, reference)
        found = {"command": command, "facts": facts}
        write_json(path, found | {"points": list(points.values())})
        print(LINE.format(**points[key]), flush=True)

    title = caption(name, f"{args.count} samples, without guidance", metadata)
    figure = args.out / "vis" / f"compare_samplers_{name}.png"
    save_figure(points, levels, figure, title)


if __name__ == "__main__":
    run(main)
