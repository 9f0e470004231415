"""Part 4: noise tables, forward noising, and the times that the loss draws."""

import torch

from ..checks import Finding, NotExamined, check
from . import calls
from .denoisers import denoiser_of
from .noising import DDPM, FLOW, draws_of, noised_batch, process_of, table, tables_of

KIT = {"num_steps": 300, "beta_min": 1e-4, "beta_max": 5e-2}
KIT_BETA, KIT_ALPHA_BAR = 2.23e-4, 4.64e-4  # the first beta, the last alpha-bar

# The noise tables -----------------------------------------------------------------


@check(4, modules=("diffusion",))
def noise_tables(subject):
    """The noise tables are in range, fall, and belong together."""
    yield from table_findings(subject)


def table_findings(subject):
    """Yield what is wrong with the noise tables."""
    tables = tables_of(subject)
    # A completion may keep its tables elsewhere; the network shows them.
    if tables is None:
        return
    betas, alphas_bar = tables
    # Without that, no other table is a number.
    if not (betas.min() > 0 and betas.max() < 1):
        yield Finding(
            "noise_table_range",
            f"betas from {betas.min():.3g} to {betas.max():.3g}",
            "every beta is a variance between 0 and 1",
        )
        return
    yield from product_findings(subject, betas, alphas_bar)


def product_findings(subject, betas, alphas_bar):
    """Yield tables that do not follow from betas."""
    # By name and by the definitions of the paper.
    true = torch.cumprod(1 - betas, dim=0)
    derived = {
        ("alphas", "alpha"): 1 - betas,
        ("alphas_sqrt", "sqrt_alphas"): (1 - betas).sqrt(),
        ("alphas_bar",): true,
        ("alphas_bar_sqrt", "sqrt_alphas_bar", "sqrt_alphas_cumprod"): true.sqrt(),
        (
            "one_minus_alphas_bar_sqrt",
            "sqrt_one_minus_alphas_bar",
            "sqrt_one_minus_alphas_cumprod",
        ): (1 - true).sqrt(),
    }
    # An error of alphas_bar is in all tables that follow from it: name the first.
    found = {names[0]: table(subject, *names) for names in derived}
    found["alphas_bar"] = alphas_bar
    for names, expected in derived.items():
        values = found[names[0]]
        if values is None or len(values) not in (len(expected), len(expected) + 1):
            continue
        values = values[-len(expected) :]  # without a step 0 that adds nothing
        if not torch.allclose(values, expected, rtol=0.02, atol=1e-6):
            # The entry that differs most.
            worst = int((values - expected).abs().argmax())
            yield Finding(
                "noise_table_values",
                f"{names[0]}[{worst}] is {values[worst]:.4g}",
                f"{expected[worst]:.4g}, by the betas",
            )
            return
    # The ends mean something only where the tables belong together.
    yield from end_findings(subject, betas, true)


def end_findings(subject, betas, alphas_bar):
    """Yield what the ends of the schedule show."""
    denoiser = denoiser_of(subject)
    # A tenth of the variance is a third of the amplitude.
    if alphas_bar[-1] > 0.1 and not is_flow(subject):
        yield Finding(
            "noise_too_weak",
            f"after the last step alphas_bar is {alphas_bar[-1]:.3g}",
            "about 0: sampling starts from noise without any photo in it",
        )
    elif kit_schedule(denoiser, subject) and not (
        abs(betas[0] / KIT_BETA - 1) < 0.01
        and abs(alphas_bar[-1] / KIT_ALPHA_BAR - 1) < 0.02
    ):
        yield Finding(
            "kit_schedule_values",
            f"first beta {betas[0]:.3g}, last alphas_bar {alphas_bar[-1]:.3g}",
            f"{KIT_BETA:.3g} and {KIT_ALPHA_BAR:.3g}, by the starter kit's formula",
        )


def is_flow(subject):
    """Tell whether the loss noises photos on a straight line, without the tables."""
    try:
        return process_of(subject).form == FLOW
    except NotExamined:
        return False


def kit_schedule(denoiser, subject):
    """Tell whether the starter kit's formula and constants of the noise are kept."""
    namespace = vars(denoiser.module)
    if any(namespace.get(name) != value for name, value in KIT.items()):
        return False
    # Both the range of the sigmoid and the sigmoid itself.
    sigmoid = calls.own_calls(denoiser.tree, "sigmoid")
    text = (subject.folder / "diffusion.py").read_text("utf-8", errors="replace")
    return bool(sigmoid) and "linspace(-6, 6" in text


# The forward process --------------------------------------------------------------


@check(4, seconds=60, modules=("diffusion",))
def forward_noising(subject):
    """The network is given x_t as the noise tables say (R27)."""
    if list(table_findings(subject)):
        raise NotExamined("the noise tables are wrong")
    # The measured factors, and what the tables say of them.
    process, tables = process_of(subject), tables_of(subject)
    if process.form == FLOW:
        return
    expected = expected_factors(process, tables)
    if process.form is None and expected is None:
        raise NotExamined("the noised images fit no known forward process")
    if process.form == DDPM:
        # A schedule of its own is as good as that of the tables.
        yield from order_findings(process, expected)
    elif not exploding(process):
        yield from factor_findings(process, expected)


def expected_factors(process, tables):
    """Return the factors (a, b), each (K,), at the process's times, or None."""
    if tables is None or not process.discrete:
        return None
    length = len(tables.betas)
    # Steps of the tables are whole numbers.
    whole = (process.times == process.times.round()).all()
    first, last = process.times[0], process.times[-1]
    if whole and first >= 0 and last <= length and not (first == 0 and last == length):
        # Times count from 0, or from 1 to the number of steps.
        index = process.times.long() - int(last == length)
    elif len(process.times) == length:
        index = torch.arange(length)
    else:
        return None
    # Equation 4 of Ho et al. 2020.
    alphas_bar = tables.alphas_bar[index]
    return alphas_bar.sqrt(), (1 - alphas_bar).sqrt()


def exploding(process):
    """Tell whether noise is added to photos that keep their scale, beyond theirs."""
    return (process.a - 1).abs().max() < 0.01 and process.b.max() > 1.5


def order_findings(process, expected):
    """Yield what is wrong with factors whose squares have the sum 1."""
    if process.discrete and not (process.a.diff() < 0).all():
        yield Finding(
            "forward_noise",
            "the factor of the photo does not fall from each step to the next",
            "later steps hold less of the photo",
        )
    elif expected is not None:
        # The factors of the step before, or of the step after.
        a = expected[0]
        shifted = [(process.a[:-1], a[1:]), (process.a[1:], a[:-1])]
        fits = [torch.allclose(*pair, rtol=1e-4, atol=1e-6) for pair in shifted]
        if any(fits):
            yield Finding(
                "forward_noise",
                f"step {process.times[1]:g} has the factors of a step next to it",
                "alphas_bar_sqrt[t] and one_minus_alphas_bar_sqrt[t] of the same t",
            )


def factor_findings(process, expected):
    """Yield where the ratio of noise and photo is not that of the tables."""
    a, b = expected
    # The ratio alone: an input may be scaled to another variance.
    measured, ratio = process.b / process.a, b / a
    places = sorted({0, len(a) // 2, len(a) - 1})
    wrong = [i for i in places if not abs(measured[i] / ratio[i] - 1) < 0.15]
    if wrong:
        i = wrong[0]
        yield Finding(
            "forward_noise",
            f"at t = {process.times[i]:g} the network is given "
            f"{process.a[i]:.3g} x_0 + {process.b[i]:.3g} noise",
            f"{a[i]:.3g} x_0 + {b[i]:.3g} noise",
        )


# Times ----------------------------------------------------------------------------


@check(4, seconds=60, modules=("diffusion",))
def training_times(subject):
    """The loss draws a time for each image, from the first step to the last."""
    denoiser = denoiser_of(subject)
    # One batch first: a shared time cannot be examined further.
    call = noised_batch(denoiser, denoiser.photos(64), seed=0)
    times = call.t.reshape(-1)
    if len(times) != 64 or (times == times[0]).all():
        yield Finding(
            "one_time_per_batch",
            f"{len(times.unique())} time for 64 images",
            "each image of a batch has its own random time",
        )
        return
    process = process_of(subject)
    if not process.discrete:
        yield from flow_range_findings(process)
        return
    # Whole numbers up to the number of steps are steps.
    first, last, steps = process.times[0], process.times[-1], denoiser.n_steps
    whole = (process.times == process.times.round()).all()
    if not whole or last > steps or last < steps / 2:
        return  # another unit of time
    if (first > 0 or last < steps - 1) and not (first == 1 and last == steps):
        yield Finding(
            "times_not_covered",
            f"times from {first:g} to {last:g} in {len(draws_of(subject).t)} draws",
            f"all steps from 0 to {steps - 1}",
        )


def flow_range_findings(process):
    """Yield a finding if continuous times leave out an end of the straight line."""
    if process.form == FLOW and not (process.a.max() > 0.9 and process.a.min() < 0.1):
        yield Finding(
            "times_not_covered",
            f"the factor of the photo is {process.a.min():.2f} to "
            f"{process.a.max():.2f}",
            "times from the photo (1) to noise (0)",
        )
