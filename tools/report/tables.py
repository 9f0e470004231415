"""The tables and numbers of the report as text: contents of files -> Markdown."""

# `say` is a function of tools.report.words.translator: an English phrase -> the phrase
# in the language of the report.

from pathlib import PurePath

from utils.cli.tables import markdown_table

NFE_LIMITS = (4, 8, 16, 40)  # the best sampler within each has a row
UNUSED = {"patience", "eta", "sigma_max"}  # settings in which no model here differs
NAMES = {  # of models, and of sets of images in tools.evaluate, by path, file or name
    "our AE": "AE (part 2)",
    "our VAE": "VAE (part 3)",
    "our AE, of other photos": "AE (part 2), trained on three species",
    "our VAE, of other photos": "VAE (part 3), trained on three species",
    "trial/models/Best_VAE.pth": "VAE at 64 x 64, 6 epochs",
    "trial_64/models/Best_VAE.pth": "VAE at 64 x 64, 6 epochs",
    "AE": "AE (part 2)",
    "VAE": "VAE (part 3)",
    "diffusion": "default model",
    "diffusion_quick": "`--preset quick`",
    "diffusion_short": "`--preset short`",
    "diffusion_ddpm": "DDPM",
    "diffusion_64": "default model at 64 x 64",
    "diffusion_fast": "few-step model",
}

# Numbers as text ---------------------------------------------------------------------


def rounded(value):
    """Return a number with three digits; whole and large numbers in full."""
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    # Three digits before the point leave it at the end.
    return f"{value:#.3g}".rstrip(".")


def estimate(value):
    """Return [value, low, high] as text."""
    # Raises ValueError if it is the reason why there is no value.
    if isinstance(value, str):
        raise ValueError(value)
    return "{} [{}, {}]".format(*map(rounded, value))


def percent(value):
    """Return a proportion as percent; two decimals where it is below a hundredth."""
    # One decimal of such a number would have one digit.
    return f"{100 * value:.{2 if abs(value) < 0.01 else 1}f}"


def percent_estimate(value):
    """Return [value, low, high] of a proportion as percent."""
    return "{} % [{}, {}]".format(*map(percent, value))


def setting(value, say):
    """Return the value of a setting with all its digits."""
    if isinstance(value, list | tuple):
        return ", ".join(setting(part, say) for part in value)
    if isinstance(value, bool):
        return say("yes" if value else "no")
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else say(str(value))


# Words -------------------------------------------------------------------------------


def name_of(key, say):
    """Return the name that a reader knows of a model or a set of images."""
    # A file is known by its path or by its name: models/Best_VAE.pth -> VAE.
    path = PurePath(key)
    if key not in NAMES and path.suffix in (".pkl", ".pth"):
        key = path.stem.removeprefix("Best_")
        return say(NAMES.get(key, f"`{key}`"))
    return say(NAMES.get(key, key))


def machine(facts, say):
    """Return the machine of a measurement in words."""
    words = say("{processor}; cores: {cores}; threads: {threads}; torch {torch}")
    # After the processor's name, whether it has units for bfloat16.
    name, comma, units = facts["processor"].rpartition(", ")
    return words.format(**facts | {"processor": name + say(comma + units)})


def sampler(found, say):
    """Return how the first set of images was sampled, in words."""
    config = next(iter(found.values()))
    words = say("{sampler}, {steps} steps, NFE {nfe}, ").format(**config)
    if config.get("autoguidance", 1) != 1:
        words += say("autoguidance {:g}, ").format(config["autoguidance"])
    if config["guidance"] == 1:
        return words + say("no classifier-free guidance")
    # JSON has no infinity, so that an interval without an end has None there.
    low, high = config["guidance_interval"]
    limit = "{:g} and above" if high is None else "from {:g} to {:g}"
    scale = say("classifier-free guidance {:g} at sigma {}")
    return words + scale.format(config["guidance"], say(limit).format(low, high))


# Tables of metrics -------------------------------------------------------------------


def metrics(found, columns, say):
    """Return a table of every set of images: {heading: (metric, how to write it)}."""
    # Reconstructions are left out.
    sets = {k: facts for k, facts in found.items() if not k.startswith("recon")}
    # A column needs a metric that was measured.
    columns = {
        heading: (metric, form)
        for heading, (metric, form) in columns.items()
        if any(metric in facts for facts in sets.values())
    }
    measured = {metric for metric, _ in columns.values()} - {"images"}
    rows = [
        [name_of(name, say), *cells(facts, columns)]
        for name, facts in sets.items()
        if measured & facts.keys()  # copies of photos have few
    ]
    return markdown_table([say("images"), *map(say, columns)], rows)


def cells(facts, columns):
    """Return the values of the columns as text, `-` where there is none."""
    # A str is the reason why there is no value, such as no requested species.
    values = [(facts.get(metric, ""), form) for metric, form in columns.values()]
    return ["-" if isinstance(v, str) else form(v) for v, form in values]


def distances(found, say):
    """Return the table of distances, those to the validation photos first."""
    # The others are to all photos.
    first = next(iter(found.values()))["Frechet distance"][0]
    kernel = "kernel distance to validation photos"
    columns = {
        "number": ("images", rounded),
        kernel: (kernel, estimate),
        "Frechet distance to validation photos": ("- to validation photos", estimate),
        "extrapolated": ("- extrapolated", estimate),
        "Frechet distance to all photos": ("Frechet distance", estimate),
        "relative to the first row": (
            "Frechet distance",
            lambda f: rounded(f[0] / first),
        ),
        "kernel distance to all photos": ("kernel distance", estimate),
    }
    return metrics(found, columns, say)


def species(found, say):
    """Return the table of classified species."""
    name = "classified as requested"
    return metrics(found, {name: (name, percent_estimate)}, say)


def variety(found, say):
    """Return the table of recall and precision."""
    names = "recall at equal number", "precision at equal number"
    return metrics(found, {name: (name, percent_estimate) for name in names}, say)


def copies(found, say):
    """Return the table of copies and distances to the nearest training photo."""
    # The first is a proportion, the second a median distance.
    forms = {"copies": percent_estimate, "nearest": estimate}
    names = [f"{what} by {by}" for by in ("pixels", "features") for what in forms]
    columns = {name: (name, forms[name.split()[0]]) for name in names}
    return metrics(found, columns, say)


def ladder(models, say):
    """Return the table of models of different training times, the fastest first."""
    columns = {
        "kernel distance": ("kernel distance to validation photos", estimate),
        "extrapolated": ("- extrapolated", estimate),
        "recall": ("recall at equal number", percent_estimate),
        "precision": ("precision at equal number", percent_estimate),
        "as requested": ("classified as requested", percent_estimate),
        "copies by features": ("copies by features", percent_estimate),
    }
    rows = []
    for name, found in sorted(models.items(), key=lambda row: row[1]["minutes"]):
        counts = f"{found['minutes']:.1f}", str(found.get("nfe", 1))
        rows.append([name_of(name, say), *counts, *cells(found, columns)])
    head = ["model", "minutes", "NFE", *columns]
    return markdown_table([*map(say, head)], rows)


# Other tables ------------------------------------------------------------------------


def settings(models, say):
    """Return a table of settings; models: metadata of weights."""
    # What is no setting comes first, then every setting of the first model.
    facts = {
        "photos": lambda m: m["data"]["count"],
        "species": lambda m: len(m["data"]["classes"]),
        "parameters": lambda m: m["parameters"],
        "seed": lambda m: m["seed"],
    }
    rows = [
        [say(name), *(setting(fact(m), say) for m in models)]
        for name, fact in facts.items()
    ]
    for name in models[0]["settings"]:
        if name not in UNUSED:
            values = (m["settings"].get(name, "default") for m in models)
            rows.append([f"`{name}`", *(setting(value, say) for value in values)])
    names = (name_of(m["model"], say) for m in models)
    return markdown_table([say("setting"), *names], rows)


def samplers(found, say):
    """Return a table: the reference, and the best sampler within each of NFE_LIMITS."""
    # The first point is the reference, the last one its whole schedule.
    points = found["points"]
    reference = points[0]
    chosen = {say("reference"): reference, say("whole schedule"): points[-1]}
    points = [p for p in points if not isinstance(p["frechet"], str)]
    for limit in NFE_LIMITS:
        within = [point for point in points if point["nfe"] <= limit]
        best = min(within, key=lambda point: point["frechet"][0], default=None)
        # A row that repeats another says nothing.
        if best and best not in chosen.values():
            chosen[say("at most {}").format(limit)] = best
    # Distance and time also relative to the reference.
    rows = []
    for name, point in chosen.items():
        change = point["frechet"][0] / reference["frechet"][0] - 1
        seconds = point["seconds_per_image"]
        faster = reference["seconds_per_image"] / seconds
        counts = point["sampler"], str(point["steps"]), str(point["nfe"])
        distance = estimate(point["frechet"]), f"{100 * change:+.1f} %"
        times = rounded(1000 * seconds), f"{faster:.1f}"
        rows.append([name, *counts, *distance, *times])
    head = "limit;sampler;steps;NFE;Frechet distance;change;ms per image;speed-up"
    return markdown_table([*map(say, head.split(";"))], rows, text_columns=2)


def reflow(found, say):
    """Return a table of few network evaluations, before and after reflow."""
    # The last point of each is by the default sampler.
    rows = [
        [
            say(name),
            str(point["nfe"]),
            estimate(point["frechet"]),
            rounded(1000 * point["seconds_per_image"]),
        ]
        for name in ("before", "after")
        for point in found[name]
    ]
    head = "model", "NFE", "Frechet distance", "ms per image"
    return markdown_table([*map(say, head)], rows)


def step_parts(proportions, say):
    """Return a table of the operations of a training step, the longest first."""
    rows = [
        [say(name) if name == "rest" else f"`{name}`", f"{percent(value)} %"]
        for name, value in sorted(proportions.items(), key=lambda part: -part[1])
    ]
    head = "part of a step", "proportion of its time"
    return markdown_table([*map(say, head)], rows)


def durations(steps, say):
    """Return a table of the steps of tools.reproduce; steps: name -> its facts."""
    rows = [
        [f"`{name}`", say("{} min").format(f"{facts['seconds'] / 60:.1f}")]
        for name, facts in steps.items()
    ]
    return markdown_table([say("step"), say("duration")], rows)
