"""What the report says in words, whatever the rows are."""

from __future__ import annotations

TITLE = "Are minima that are wide in θ also wide in X, and more robust?"

QUESTION = """
Khritankov, Veprikov and Smirnov (Adversarial robustness through wide local minima) claim that a minimum of the
training loss that is wide in the parameters θ is also wide in the inputs X, and that networks in such minima
withstand adversarial images. Here both are measured: d_θ is the distance from the trained parameters to the
nearest point at which the training loss has risen to c, d_X the distance from a test image to the nearest image
whose loss is c, w = d / (c − φ*) the width, φ* the loss at the minimum. Each point is one training run. Runs of
equal settings form a cell and differ in their seed alone; since settings move all quantities at once, only what
holds within cells is tested.
"""

OUTCOMES = {
    "supported": "Supported within cells",
    "opposite": "Opposite sign within cells",
    "not supported": "Not supported",
    "unsettled": "Unsettled",
    "not testable": "Not testable",
}

FIGURES = {
    "d_theta-d_x": "Distance in X against distance in θ",
    "w_theta-w_x": "Width in X against width in θ",
    "w_theta-fgsm": "Accuracy under attack against width in θ",
    "w_x-fgsm": "Accuracy under attack against width in X",
    "lambda_1-fgsm": "Accuracy under attack against the largest eigenvalue λ₁ of the Hessian",
}

FOREST = """
Disc and bar: ρ within cells of equal settings, and its 95 % interval. Open diamond: total ρ over all these
runs, settings ignored; it is confounded by the settings.
"""

PLOTS = """
Every point is one of the {runs}; none is left out. Point at one, or tap near it, and it tells its run, settings
and evidence; the same run is ringed in the other panels. With the keyboard, Tab goes from panel to panel, the
arrow keys from point to point (left and right by the horizontal axis, up and down by the vertical one), Home
and End to the first and last, Escape closes. Numbers above a panel are over all its runs, whatever the filter
shows.
"""

METHOD = """
Training loss and Hessian are those of a fixed subset of the training data. d_θ and the d_X of each image are
found by a search from several starts that descends on the level set; d_X is the median over images. Accuracies
under attack are over a fixed subset of the test data, attacks bounded by ε in the ∞-norm. Ranks are over all
runs; within cells, their residuals from the means of cells are correlated. More is said in docs/method.md and
docs/attacks.md of the source.
"""

SETTINGS = {
    "at": "position in the run that was measured",
    "levels": "levels c of the loss (nat)",
    "level": "level c of the tests",
    "eps": "radius ε of the attacks, ∞-norm",
    "theta_samples": "training samples in the loss over θ",
    "x_samples": "test images whose distance is searched",
    "attack_samples": "test images under FGSM",
    "ladder_samples": "of those, images under all attacks",
    "repeat": "further measurements, on disjoint data",
    "seed": "seed of subsets, searches and draws",
    "permutations": "draws of the permutation test",
    "bootstrap": "draws of the bootstrap",
    "alpha": "level α of the tests",
}

CORRELATIONS = """
Rank correlations with 95 % cluster bootstrap intervals ({bootstrap:,} draws of whole cells). Within-cell ρ
compares runs of equal settings, and only it is tested: p permutes runs within cells ({permutations:,} draws).
Total ρ, over all runs, and between ρ, over the means of cells, are description: the settings move all
quantities at once. Primary: the one hypothesis fixed in advance. Link: the other parts of the claim; Holm's p
is over these three. All other pairs are exploratory, their p not adjusted.
"""

PARTIAL = """
Within cells, given the ranks of other quantities: p permutes what is left of the second quantity within cells
(Freedman and Lane, {permutations:,} draws). The training loss is an outcome of training, as widths are: total ρ,
without it, is what a wider minimum goes with, direct ρ what remains at equal loss; neither corrects the other.
What is given φ* is in ranks also given c − φ*, the divisor of widths. Not adjusted for multiple tests.
"""

LEVELS = """
Within-cell ρ of distances in θ and in X at every level, metric and norm that enough runs have, over runs that have
all of them. Max-T takes the largest of all statistics in each of {permutations:,} permutations, the same for all
pairs: its p hold for all together, and cost little where pairs agree.
"""

GRANULATED = """
Runs that differ in one setting alone, whatever their seeds: does the one with the larger {d_theta} have the
larger value? τ is concordant less discordant pairs, mean over groups of equal other settings; the sign error is
the share of pairs ordered oppositely, 0.50 if by chance. A mean hides a setting along which the order is
reversed: the largest sign error does not. Between settings, not within: description, without p. Intervals
resample whole cells ({bootstrap:,} draws).
"""

RELIABILITY = """
Each run was measured {measurements} times, on disjoint data. Reliability is the share of the variance of ranks
within cells that repeats; corrected ρ is ρ over the root of both reliabilities: what it would be without errors
of measurement, if those of the two quantities are independent. A small ρ with a small reliability is no evidence
of no association.
"""

REPEATS = """
Over all runs, distances as logarithms. Agreement counts a shift between measurements as error, consistency does
not. Runs of unlike settings differ more than those of a cell: within cells, reliability is lower.
"""

MASKING = """
Means over the used runs of each cell of equal settings, under attack at ε = {eps:g}. FGSM as published
differentiates float32 cross-entropy, FGSM exact the log-odds: in exact arithmetic they are the same attack, so
that their difference is rounding, not robustness. Worst case: what all attacks together leave standing.
"""
AUDITED = "The audit calls a run sound, or says what its gradients hide; its reasons are told at each point."
NOT_AUDITED = "These rows hold no verdict of the masking audit at ε = {eps:g}: its counts are missing here."
MERGED = (
    "There are too many cells for a table: here, runs that differ in the learning rate alone are put together."
)

EVIDENCE = """
Every distance is that of a point that was found: an upper bound. Grades of d_θ at c = {level}: strong,
stationary and found by several searches that agree within 1 %; fair, stationary up to kinks; weak, an upper
bound, no more. Angle: between displacement and gradient, zero at a smooth nearest point. Spread: longest over
shortest end of the searches, minus 1.
"""
JUDGED = "These rows hold no grade; it is judged by angle and spread, and can be too low, not too high."

LEFT_OUT = {
    "failed": "could not be read or measured",
    "repeated": "a later snapshot of the same run, or the same weights, is in the table",
    "diverged": "the training loss is missing or not below ln 10, that of guessing",
    "not_reached": "the search in θ found no point at the level",
    "below_minimum": "the training loss is above the level, so that there is no distance",
}


def say(words: str, **values: object) -> str:
    """One paragraph, with its values, on one line."""
    return " ".join(words.format(**values).split())
