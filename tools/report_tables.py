"""The tables and numbers of the report as text: contents of files -> Markdown."""

from utils.cli.tables import markdown_table

NFE_LIMITS = (4, 8, 16, 40)  # the best sampler within each has a row
UNUSED = {"patience", "eta", "sigma_max"}  # settings in which no model here differs
NAMES = {  # in tools.evaluate
    "our VAE": "VAE of part 3",
    "our AE": "AE of part 2",
    "models/Best_VAE.pth": "VAE of part 3",
    "models/Best_diffusion_short.pkl": "`--preset short`",
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


def setting(value):
    """Return the value of a setting with all its digits."""
    if isinstance(value, list | tuple):
        return ", ".join(map(setting, value))
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if type(value) is int else str(value)


# Tables ------------------------------------------------------------------------------


def metrics(found, columns):
    """Return a table of every set of images: {heading: (metric, how to write it)}."""
    # The first set is this model's; reconstructions are left out.
    sets = {k: facts for k, facts in found.items() if not k.startswith("recon")}
    this, rows = next(iter(sets)), []
    # A column needs a metric that was measured.
    columns = {
        heading: (metric, form)
        for heading, (metric, form) in columns.items()
        if any(metric in facts for facts in sets.values())
    }
    measured = {metric for metric, _ in columns.values()} - {"images"}
    for name, facts in sets.items():
        if not measured & facts.keys():  # such as copies of photos
            continue
        # A str is the reason why there is no value, such as no requested species.
        values = [(facts.get(metric, ""), form) for metric, form in columns.values()]
        cells = ["-" if isinstance(v, str) else form(v) for v, form in values]
        rows.append(["this model" if name == this else NAMES.get(name, name), *cells])
    return markdown_table(["images", *columns], rows)


def distances(found):
    """Return the table of distances, those to the validation photos first."""
    # The others are to all photos.
    own = next(iter(found.values()))["Frechet distance"][0]
    kernel = "kernel distance to validation photos"
    columns = {
        "number": ("images", rounded),
        kernel: (kernel, estimate),
        "to validation photos": ("- to validation photos", estimate),
        "extrapolated": ("- extrapolated", estimate),
        "Frechet distance": ("Frechet distance", estimate),
        "relative to this model": ("Frechet distance", lambda f: rounded(f[0] / own)),
        "kernel distance": ("kernel distance", estimate),
    }
    return metrics(found, columns)


def species(found):
    """Return the table of classified species."""
    name = "classified as requested"
    return metrics(found, {name: (name, percent_estimate)})


def variety(found):
    """Return the table of recall and precision."""
    names = "recall at equal number", "precision at equal number"
    return metrics(found, {name: (name, percent_estimate) for name in names})


def ladder(models):
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
        values = [(found[metric], form) for metric, form in columns.values()]
        cells = ["-" if isinstance(v, str) else form(v) for v, form in values]
        counts = f"{found['minutes']:.1f}", str(found.get("nfe", 1))
        rows.append([f"`{name}`", *counts, *cells])
    return markdown_table(["model", "minutes", "NFE", *columns], rows)


def copies(found):
    """Return the table of copies and distances to the nearest training photo."""
    # The first is a proportion, the second a median distance.
    forms = {"copies": percent_estimate, "nearest": estimate}
    names = [f"{what} by {by}" for by in ("pixels", "features") for what in forms]
    return metrics(found, {name: (name, forms[name.split()[0]]) for name in names})


def sampler(found):
    """Return how the first set of images was sampled, in words."""
    config = next(iter(found.values()))
    words = "{sampler}, {steps} steps, NFE {nfe}, ".format(**config)
    if config.get("autoguidance", 1) != 1:
        words += f"autoguidance {config['autoguidance']:g}, "
    if config["guidance"] == 1:
        return words + "no classifier-free guidance"
    # JSON has no infinity, so that an interval without an end has None there.
    low, high = config["guidance_interval"]
    limit = f"{low:g} and above" if high is None else f"from {low:g} to {high:g}"
    scale = config["guidance"]
    return f"{words}classifier-free guidance {scale:g} at sigma {limit}"


def settings(*models):
    """Return a table of settings; models: metadata of weights."""
    # What is no setting comes first, then every setting of the first model.
    facts = {
        "photos": lambda m: m["data"]["count"],
        "species": lambda m: len(m["data"]["classes"]),
        "parameters": lambda m: m["parameters"],
        "seed": lambda m: m["seed"],
    }
    rows = [[name, *(setting(fact(m)) for m in models)] for name, fact in facts.items()]
    for name in models[0]["settings"]:
        if name not in UNUSED:
            values = (m["settings"].get(name, "default") for m in models)
            rows.append([name.replace("_", " "), *map(setting, values)])
    return markdown_table(["setting", *(f"`{m['model']}`" for m in models)], rows)


def machine(facts):
    """Return the machine of a measurement in words."""
    words = "{processor}; cores: {cores}; threads: {threads}; torch {torch}"
    return words.format(**facts)


def samplers(found):
    """Return a table: the reference, and the best sampler within each of NFE_LIMITS."""
    # The first point is the reference, the last one its whole schedule.
    points = found["points"]
    reference = points[0]
    chosen = {"reference": reference, "whole schedule": points[-1]}
    points = [p for p in points if not isinstance(p["frechet"], str)]
    for limit in NFE_LIMITS:
        if within := [point for point in points if point["nfe"] <= limit]:
            best = min(within, key=lambda point: point["frechet"][0])
            chosen[f"at most {limit}"] = best
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
    return markdown_table(head.split(";"), rows, text_columns=2)


def reflow(found):
    """Return a table of few network evaluations, before and after reflow."""
    # The last point of each is by the default sampler.
    rows = [
        [
            name,
            str(point["nfe"]),
            estimate(point["frechet"]),
            rounded(1000 * point["seconds_per_image"]),
        ]
        for name in ("before", "after")
        for point in found[name]
    ]
    return markdown_table(["model", "NFE", "Frechet distance", "ms per image"], rows)
