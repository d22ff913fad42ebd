"""Five leading Hessian eigenpairs: ours and other tools' on the same networks, tensors and accuracy, in one run.

Every tool must return five pairs of largest magnitude whose true residuals ‖Hv − λv‖/|λ| are at most 10⁻³, for
every seed, measured here by double backward in float64. Each rival gets the cheapest of its settings that does,
found beforehand in trials that count products, and the faster of two memory layouts. All are timed in turn, round
by round, from the construction of their operator on; compared are medians. Imports, a warm-up of each and the
search for settings are not counted, nor is our trace of the network, made once for all points of one shape,
which is printed apart. PyHessian, which takes minutes, gets fewer rounds.

    python benchmarks/hessian.py --workloads cnn mlp               # two threads
    python benchmarks/hessian.py --workloads resnet20 --rounds 2
    python benchmarks/hessian.py --workloads --trajectory adam sgd --steps 1 16 # products along a run
    python benchmarks/hessian.py --workloads --layouts             # memory layouts and convolution paths
    python benchmarks/hessian.py --workloads --profile cnn         # where the time of a product goes
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from hessian_workloads import trajectory, workload
from rivals_hessian import CRITERION, NUM_PAIRS, RIVALS, Product, Rival, Solution, Workload, double_backward
from torch import Tensor

from landscape.geometry.eigenpairs import top_eigenpairs
from landscape.problem import network
from landscape.problem import parameter_objective as objective_module
from landscape.problem.parameter_objective import ParameterObjective, parameter_objective

RESIDUAL = 1e-3
TRIAL_MARGIN = 0.9  # trials measure in float32
ORTHOGONAL = 1e-2
OURS = "landscape"
SLOW = "PyHessian"
PASSES = 7  # of gradients and products, for their medians


@dataclass(frozen=True)
class Contestant:
    """A tool at its setting."""

    name: str
    setting: str
    solve: Callable[[int], Solution]
    rounds: int


@dataclass(frozen=True)
class Result:
    """Medians over rounds, and the worst residual of all of them."""

    tool: str
    setting: str
    products: float
    seconds: float
    fastest: float
    slowest: float
    residual: float
    rounds: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="*", default=["cnn", "mlp", "resnet20"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slow-rounds", type=int, default=1, help="of PyHessian")
    parser.add_argument(
        "--without", nargs="*", default=[], choices=[r.name for r in RIVALS], help="leave these out"
    )
    parser.add_argument("--trajectory", nargs="*", choices=["adam", "sgd"], default=[])
    parser.add_argument("--steps", type=int, nargs="+", default=[16], help="mini-batches between snapshots")
    parser.add_argument("--layouts", action="store_true")
    parser.add_argument("--profile", nargs="*", choices=["cnn", "mlp", "resnet20"], default=[])
    parser.add_argument("--output", type=Path, default=None, help="JSON file of all that is printed")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rivals = [rival for rival in RIVALS if rival.name not in arguments.without]
    reports = [report(name, rivals, arguments.rounds, arguments.slow_rounds) for name in arguments.workloads]
    reports += [along(optimizer, steps) for optimizer in arguments.trajectory for steps in arguments.steps]
    reports += [layouts(name) for name in ("cnn", "resnet20") if arguments.layouts]
    reports += [profiled(name) for name in arguments.profile]
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(reports, indent=2))


def report(name: str, rivals: Sequence[Rival], rounds: int, slow_rounds: int) -> dict[str, Any]:
    """All figures of one workload, printed as they come."""
    load = workload(name)
    (x, y), *_ = load.batches
    phi = parameter_objective(load.model, x, y)
    print(f"\n{name}: {load.size} parameters, {load.num_samples} samples", flush=True)
    passes = unit_costs(load, phi)
    print(", ".join(f"{key} {value:.4g}" for key, value in passes.items()), flush=True)
    contestants = [Contestant(OURS, "tol 1e-3", lambda seed: ours(phi, seed), rounds)]
    for rival in rivals:
        count = slow_rounds if rival.name == SLOW else rounds
        contestants.append(tuned(rival, load, phi, range(count)))
    results = race(contestants, exact_product(load))
    print_table(results, passes)
    return (
        {"workload": name, "size": load.size, "samples": load.num_samples}
        | passes
        | {"results": [asdict(result) for result in results]}
    )


def unit_costs(load: Workload, phi: ParameterObjective) -> dict[str, float]:
    """Seconds of a trace, of gradients and of products, in turn."""
    began = time.perf_counter()
    product = phi.linearize(phi.origin)
    first = time.perf_counter() - began
    vector = torch.randn_like(phi.origin)
    calls = {
        "gradient": lambda: phi.value_and_grad(phi.origin),
        "product": lambda: product(vector),
        "linearisation": lambda: phi.linearize(phi.origin),
        "plain gradient": lambda: plain_gradient(load),
        "plain double backward": lambda: double_backward(load)(vector[0]),
    }
    seconds = {name: [clock(call) for _ in range(PASSES)] for name, call in calls.items()}
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ratios = [p / g for p, g in zip(seconds["product"], seconds["gradient"], strict=True)]
    return (
        {"first trace": first - medians["linearisation"]}
        | medians
        | {"product per gradient": statistics.median(ratios)}
    )


def plain_gradient(load: Workload) -> None:
    for x, y in load.batches:
        torch.autograd.grad(CRITERION(load.model(x), y), list(load.model.parameters()))


def clock(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def ours(phi: ParameterObjective, seed: int) -> Solution:
    pairs = top_eigenpairs(phi, NUM_PAIRS, "LM", RESIDUAL, seed)
    return Solution(pairs.eigenvectors[0], pairs.num_hvp)


def tuned(rival: Rival, load: Workload, phi: ParameterObjective, seeds: Sequence[int]) -> Contestant:
    """The rival at the setting and in the memory layout that serve it best."""
    product = phi.linearize(phi.origin)
    setting = cheapest(rival, load, lambda vector: product(vector[None])[0], seeds)
    layouts = {"": load, " channels last": load.channels_last()}
    seconds = {
        name: min(clock(lambda w=w: rival.solve(w.fresh(), rival.quick, 0, None)) for _ in range(2))
        for name, w in layouts.items()
        if w is not load or not name
    }
    layout = min(seconds, key=seconds.__getitem__)
    label = f"{setting}{layout}"
    print(f"  {rival.name}: {label}", flush=True)
    return Contestant(
        rival.name, label, lambda seed: rival.solve(layouts[layout].fresh(), setting, seed, None), len(seeds)
    )


def cheapest(rival: Rival, load: Workload, product: Product, seeds: Sequence[int]) -> Any:
    """The setting with the fewest products whose residuals are small enough for every seed."""

    def holds(solution: Solution) -> bool:
        return worst_residual(solution.vectors, product) <= TRIAL_MARGIN * RESIDUAL

    settings = list(rival.settings)
    if not rival.ascending:
        trials = {setting: rival.solve(load.fresh(), setting, 0, product) for setting in settings}
        settings = sorted(
            (s for s in settings if holds(trials[s])), key=lambda setting: trials[setting].num_products
        )
    for setting in settings:
        if all(holds(rival.solve(load.fresh(), setting, seed, product)) for seed in seeds):
            return setting
    raise SystemExit(f"{rival.name} reaches {RESIDUAL} on {load.name} with none of its settings")


def race(contestants: Sequence[Contestant], exact: Product) -> list[Result]:
    """All of them in turn, round by round."""
    seconds: dict[str, list[float]] = {c.name: [] for c in contestants}
    solutions: dict[str, list[Solution]] = {c.name: [] for c in contestants}
    for number in range(max(c.rounds for c in contestants)):
        for contestant in contestants:
            if number < contestant.rounds:
                began = time.perf_counter()
                solutions[contestant.name].append(contestant.solve(number))
                seconds[contestant.name].append(time.perf_counter() - began)
        print(f"  round {number + 1} done", flush=True)
    return [
        Result(
            c.name,
            c.setting,
            statistics.mean(s.num_products for s in solutions[c.name]),
            statistics.median(seconds[c.name]),
            min(seconds[c.name]),
            max(seconds[c.name]),
            max(worst_residual(s.vectors, exact, torch.float64) for s in solutions[c.name]),
            c.rounds,
        )
        for c in contestants
    ]


def exact_product(load: Workload) -> Product:
    """Double backward in float64, which knows nothing of any of the tools."""
    model = copy.deepcopy(load.model).double()
    batches = [(x.double(), y) for x, y in load.batches]
    return double_backward(Workload(load.name, model, batches))


def worst_residual(vectors: Tensor, product: Product, dtype: torch.dtype = torch.float32) -> float:
    """max ‖Hv − λv‖/|λ| with the Rayleigh quotient λ, of vectors ``(k, n)``; infinite if some are copies."""
    basis = torch.nn.functional.normalize(vectors.detach().to(dtype), dim=1)
    if (basis @ basis.T - torch.eye(len(basis), dtype=dtype)).abs().max() > ORTHOGONAL:
        return float("inf")
    images = [product(v) for v in basis]
    quotients = [v @ image for v, image in zip(basis, images, strict=True)]
    triples = zip(basis, images, quotients, strict=True)
    return max(float((image - q * v).norm() / q.abs()) for v, image, q in triples)


def along(optimizer: str, steps: int, count: int = 50) -> dict[str, Any]:
    """Products at snapshots ``steps`` mini-batches apart: from the vectors before, from the answer, from nothing.

    What is needed from the answer itself is the price of the guard, a random component; what is needed beyond is
    the price of how far the leading space has turned, which the least cosine to the space before tells.
    """
    load, points = trajectory(optimizer, count, steps)
    (x, y), *_ = load.batches
    phi, start = parameter_objective(load.model, x, y), None
    counts: dict[str, list[int]] = {"before": [], "answer": [], "nothing": []}
    cosines = []
    for number, point in enumerate(points):
        here = replace(phi, origin=point[None])
        pairs = top_eigenpairs(here, NUM_PAIRS, "LM", 1e-2, start=start)
        vectors = pairs.eigenvectors.transpose(0, 1)
        if start is not None:
            counts["before"].append(pairs.num_hvp)
            cosines.append(torch.linalg.svdvals(start[:, 0] @ vectors[:, 0].mT)[-1].item())
        if number % 5 == 0:
            counts["answer"].append(top_eigenpairs(here, NUM_PAIRS, "LM", 1e-2, start=vectors).num_hvp)
            counts["nothing"].append(top_eigenpairs(here, NUM_PAIRS, "LM", 1e-2).num_hvp)
        start = vectors
    means = {name: statistics.mean(each) for name, each in counts.items()} | {"cosine": statistics.mean(cosines)}
    print(f"{load.name}, {steps} steps apart, {count} snapshots at 1e-2, products a snapshot: {means}", flush=True)
    return {"trajectory": optimizer, "steps": steps} | means


def layouts(name: str) -> dict[str, Any]:
    """Seconds of a gradient and of a product in both memory layouts, with and without oneDNN, in turn."""
    load = workload(name)
    (x, y), *_ = load.batches
    seconds: dict[tuple[str, bool], list[tuple[float, float]]] = {}
    for _ in range(3):
        for layout, change in {"channels last": network.channels_last, "contiguous": contiguous}.items():
            for mkldnn in (True, False):
                with (
                    mock.patch.object(network, "channels_last", change),
                    mock.patch.object(objective_module, "channels_last", change),
                    torch.backends.mkldnn.flags(enabled=mkldnn),
                ):
                    phi = parameter_objective(load.model, x, y)
                    gradient = min(clock(lambda phi=phi: phi.value_and_grad(phi.origin)) for _ in range(2))
                    product, vector = phi.linearize(phi.origin), torch.randn_like(phi.origin)
                    time_of_product = min(clock(lambda p=product, v=vector: p(v)) for _ in range(2))
                    seconds.setdefault((layout, mkldnn), []).append((gradient, time_of_product))
    best = {f"{layout}, {'oneDNN' if m else 'native'}": min(t) for (layout, m), t in seconds.items()}
    for setting, (gradient, time_of_product) in best.items():
        print(f"{name}, {setting}: gradient {gradient:.3f} s, product {time_of_product:.3f} s", flush=True)
    return {"layouts": name} | best


def profiled(name: str) -> dict[str, Any]:
    """Share of each kind of operation in the time of ten products."""
    load = workload(name)
    (x, y), *_ = load.batches
    phi = parameter_objective(load.model, x, y)
    product, vector = phi.linearize(phi.origin), torch.randn_like(phi.origin)
    product(vector)
    with torch.profiler.profile() as trace:
        for _ in range(10):
            product(vector)
    spent = {event.key: event.self_cpu_time_total for event in trace.key_averages()}
    shares = {key: time / sum(spent.values()) for key, time in spent.items()}
    for key, share in sorted(shares.items(), key=lambda item: -item[1])[:12]:
        print(f"{name}, {key}: {share:.1%}", flush=True)
    return {"profile": name} | shares


def contiguous(tensor: Tensor) -> Tensor:
    return tensor.contiguous() if tensor.ndim == 4 else tensor


def print_table(results: Sequence[Result], passes: dict[str, float]) -> None:
    print("| tool | setting | products | seconds (range) | plain gradients | slower than ours | worst residual |")
    print("|---|---|---|---|---|---|---|")
    for r in results:
        print(
            f"| {r.tool} | {r.setting} | {r.products:.1f} | {r.seconds:.3g} ({r.fastest:.3g} to {r.slowest:.3g}) "
            f"| {r.seconds / passes['plain gradient']:.1f} | {r.seconds / results[0].seconds:.2f} "
            f"| {r.residual:.1e} |"
        )
    print(flush=True)


if __name__ == "__main__":
    main()
