"""Networks of the user's own: whose code is loaded, what fits, and what stays exact."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from landscape.errors import ModelError
from landscape.interchange import ImportOptions, export_snapshot, import_run
from landscape.interchange import collecting as collecting_module
from landscape.problem.model_sources import make_model, model_with, state_buffers
from landscape.problem.network import parameter_indices
from landscape.problem.normalisation import Normalisation, Normalised, normalisation_of
from landscape.robustness.certified import certified_distance
from landscape.snapshots import load_snapshot
from landscape.study.given import Given
from landscape.study.measure import measure
from landscape.study.measure_config import MeasureConfig
from landscape.study.problems import load_model, load_problem, theta_objective

SOURCE = '''
import torch
from torch import nn

class Scaled(nn.Module):
    """With a constant that is no part of its state, and a buffer that is."""

    def __init__(self, hidden=6):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 3, 5, stride=4), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, hidden),
            nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 10),
        )
        self.register_buffer("temperature", torch.tensor(2.0), persistent=False)

    def forward(self, x):
        return self.layers(x) / self.temperature

def make(hidden=6):
    torch.rand(3)
    return Scaled(hidden)

def broken():
    raise KeyError("no such thing")

def text():
    return "a network"

def silent():
    return nn.Flatten()

def ending():
    raise SystemExit(3)

def probable():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.Softmax(1))

class Nested:
    @staticmethod
    def make():
        return make()

def shared():
    layer = nn.Linear(784, 784)
    return nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer, nn.Linear(784, 10))

def two_outputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(784, 10)
        def forward(self, x):
            return self.layer(x.flatten(1)), x
    return Two()
'''
NAME = "own_networks:make"
TINY = MeasureConfig(
    levels=(2.5,), theta_samples=20, x_samples=2, attack_samples=40, ladder_samples=10, eigen_tol=0.1, tol=0.1
)


@pytest.fixture(autouse=True)
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_networks.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_networks", raising=False)


@pytest.fixture
def trained() -> nn.Module:
    """A network whose running statistics are no longer those of a new one."""
    model = make_model(NAME, {}, permitted=NAME).train()
    with torch.no_grad():
        for seed in range(3):
            model(torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(seed)))
    return model.eval()


@pytest.fixture
def run(trained: nn.Module, tmp_path: Path) -> Path:
    torch.save(trained.state_dict(), tmp_path / "own.pt")
    import_run([tmp_path / "own.pt"], tmp_path / "run", ImportOptions(model=NAME, dataset="mnist"))
    return tmp_path / "run"


def test_code_is_loaded_for_the_caller_only(run: Path) -> None:
    snapshot = load_snapshot(run)
    sys.modules.pop("own_networks", None)
    for given in (Given(), Given(model="cnn"), Given(model="os:getcwd")):
        with pytest.raises(ModelError, match=rf"if you trust it, say --model {NAME}"):
            load_problem(snapshot, "cpu", given)
    assert "own_networks" not in sys.modules
    load_problem(snapshot, "cpu", Given(model=NAME))


def test_an_imported_network_is_the_very_same(run: Path, trained: nn.Module) -> None:
    x = torch.rand(5, 1, 28, 28)
    problem = load_problem(load_snapshot(run), "cpu", Given(model=NAME))
    assert torch.equal(problem.model(x), trained(x))
    expected = trained.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in problem.model.state_dict().items())
    row = measure(load_snapshot(run), TINY, "cpu", Given(model=NAME))
    assert row["status"] == "ok" and float(row["d_theta[2.5]"] or 0) > 0


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".h5", ".npz"])
def test_round_trips_are_exact(run: Path, tmp_path: Path, suffix: str) -> None:
    snapshot = load_snapshot(run)
    file = export_snapshot(snapshot, tmp_path / f"again{suffix}")
    import_run([file], tmp_path / "again", ImportOptions(model=NAME))
    again = load_snapshot(tmp_path / "again")
    assert again.theta_sha256 == snapshot.theta_sha256
    assert list(again.buffers) == list(snapshot.buffers)
    assert all(again.buffers[name].dtype == buffer.dtype for name, buffer in snapshot.buffers.items())


def test_a_flat_vector_cannot_hold_buffers(run: Path, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"cannot hold the buffers layers\.1\.running_mean"):
        export_snapshot(load_snapshot(run), tmp_path / "flat.npy")


def changed(state: dict[str, Tensor], **changes: Tensor | None) -> dict[str, Tensor]:
    renamed = {name.replace("__", "."): value for name, value in changes.items()}
    return {name: value for name, value in (state | renamed).items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers__1__running_var": None}, r"missing layers\.1\.running_var \(3,\)"),
        ({"layers__1__running_var": torch.ones(4)}, r"layers\.1\.running_var has shape \(4,\).*needs \(3,\)"),
        ({"other__running_mean": torch.ones(4)}, r"unexpected other\.running_mean \(4,\)"),
    ],
)
def test_buffers_that_do_not_fit_are_told(
    trained: nn.Module, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    torch.save(changed(trained.state_dict(), **changes), tmp_path / "own.pt")
    with pytest.raises(ModelError, match=message):
        import_run([tmp_path / "own.pt"], tmp_path / "run", ImportOptions(model=NAME))
    assert not (tmp_path / "run").exists()


def test_counters_that_old_files_lack_are_zero(trained: nn.Module, tmp_path: Path) -> None:
    state = {name: value for name, value in trained.state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "old.pt")
    found = import_run([tmp_path / "old.pt"], tmp_path / "run", ImportOptions(model=NAME))
    assert any("stored as 0" in note for note in found.notes)
    assert load_snapshot(tmp_path / "run").buffers["layers.1.num_batches_tracked"].item() == 0


def test_without_a_model_buffers_are_kept_too(trained: nn.Module, tmp_path: Path) -> None:
    torch.save(trained.state_dict(), tmp_path / "own.pt")
    import_run([tmp_path / "own.pt"], tmp_path / "run")
    assert set(load_snapshot(tmp_path / "run").buffers) == set(state_buffers(trained))
    with pytest.raises(ModelError, match="import it again with --model"):
        load_problem(load_snapshot(tmp_path / "run"), "cpu")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("own_networks:broken", {}, "KeyError: 'no such thing'"),
        ("own_networks:nothing", {}, "AttributeError"),
        ("no_such_module:make", {}, "no module 'no_such_module'"),
        ("own_networks:make", {"depth": 3}, "unexpected keyword argument 'depth'"),
        ("own_networks:text", {}, "returned str"),
        ("own_networks:silent", {}, "without parameters"),
        ("own_networks:ending", {}, r"ends the program \(exit code 3\)"),
        ("resnet18", {"weights": "DEFAULT"}, "weights would fetch weights"),
        ("resnet17", {}, "unknown model 'resnet17'"),
        ("fcn_resnet50", {}, "unknown model 'fcn_resnet50'"),
        ("resnet18", {"num_classes": "many"}, "cannot be built"),
    ],
)
def test_networks_that_cannot_be_made(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make_model(name, arguments, permitted=name)


def test_networks_of_torchvision_and_nested_names(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    model = make_model("squeezenet1_1", {"num_classes": 10})
    assert not model.training and torch.equal(torch.get_rng_state(), state)
    assert torch.equal(make_model("squeezenet1_1", {"num_classes": 10})(torch.ones(1, 3, 64, 64)),
                       model(torch.ones(1, 3, 64, 64)))  # fmt: skip
    assert isinstance(make_model("own_networks:Nested.make", {}, "own_networks:Nested.make"), nn.Module)
    assert str(tmp_path) not in sys.path


def test_a_network_that_would_fill_the_memory_is_not_built() -> None:
    with pytest.raises(ModelError, match=r"missing classifier\.1\.weight \(100000000, 512, 1, 1\)"):
        model_with("squeezenet1_1", {"num_classes": 10**8}, {})


def test_outputs_that_are_no_logits(tmp_path: Path) -> None:
    name = "own_networks:two_outputs"
    torch.save(make_model(name, {}, name).state_dict(), tmp_path / "two.pt")
    with pytest.raises(ModelError, match="returns tuple for one image"):
        import_run([tmp_path / "two.pt"], tmp_path / "two", ImportOptions(model=name, dataset="mnist"))
    import_run([tmp_path / "two.pt"], tmp_path / "two", ImportOptions(model=name))
    with pytest.raises(ModelError, match="returns tuple for one image"):
        load_problem(load_snapshot(tmp_path / "two"), "cpu", Given(model=name, dataset="mnist"))


def test_outputs_that_are_probabilities_are_refused(tmp_path: Path) -> None:
    """Their cross-entropy would be a number, but not that of the network."""
    name = "own_networks:probable"
    torch.save(make_model(name, {}, name).state_dict(), tmp_path / "softmax.pt")
    with pytest.raises(ModelError, match="returns probabilities"):
        import_run([tmp_path / "softmax.pt"], tmp_path / "run", ImportOptions(model=name, dataset="mnist"))


def test_weights_and_buffers_are_filled_in(trained: nn.Module) -> None:
    parameters, buffers = dict(trained.named_parameters()), state_buffers(trained)
    filled = model_with(NAME, {}, parameters, buffers, permitted=NAME)
    assert torch.equal(filled(torch.ones(2, 1, 28, 28)), trained(torch.ones(2, 1, 28, 28)))
    with pytest.raises(ModelError, match=r"missing layers\.1\.running_mean"):
        model_with(NAME, {}, parameters, {}, permitted=NAME)


# ---- Normalisation


def test_normalisation_is_part_of_the_network(trained: nn.Module, tmp_path: Path) -> None:
    torch.save(trained.state_dict(), tmp_path / "own.pt")
    options = ImportOptions(model=NAME, dataset="mnist", normalisation=Normalisation((0.13,), (0.31,)))
    import_run([tmp_path / "own.pt"], tmp_path / "run", options)
    snapshot, x = load_snapshot(tmp_path / "run"), torch.rand(3, 1, 28, 28)
    problem = load_problem(snapshot, "cpu", Given(model=NAME))
    assert torch.allclose(problem.model(x), trained((x - 0.13) / 0.31))
    assert torch.allclose(problem.double().model(x.double()), problem.model(x).double(), atol=1e-4)
    assert len(theta_objective(problem, 10, 0).origin[0]) == sum(p.numel() for p in trained.parameters())
    plain = import_run([tmp_path / "own.pt"], tmp_path / "plain", ImportOptions(model=NAME, dataset="mnist"))
    assert plain.run_id != snapshot.run_id


def test_channels_have_their_own_mean() -> None:
    network = Normalised(nn.Flatten(), Normalisation((0.1, 0.2, 0.3), (1.0, 2.0, 4.0)))
    x = torch.full((1, 3, 1, 1), 0.5)
    assert torch.allclose(network(x), torch.tensor([[0.4, 0.15, 0.05]]))
    assert not Normalised(nn.Linear(2, 2).eval(), Normalisation((0.0,), (1.0,))).training


@pytest.mark.parametrize(
    "value",
    [3, {"mean": [0.1]}, {"mean": [0.1], "std": [0.0]}, {"mean": [0.1], "std": [1, 2]}, {"mean": "a", "std": "b"},
     {"mean": [float("nan")], "std": [1.0]}, {"mean": [], "std": []}],
)  # fmt: skip
def test_normalisations_that_cannot_be(value: Any) -> None:
    with pytest.raises(ModelError, match="normalisation"):
        normalisation_of({"normalisation": value})
    assert normalisation_of({}) is None


def test_bounds_see_through_the_normalisation() -> None:
    """They are those of a network that has it in the weights of its first layer."""
    mean, std = 0.2, 0.5
    first, last = nn.Linear(36, 12), nn.Linear(12, 3)
    folded = nn.Linear(36, 12)
    with torch.no_grad():
        folded.weight.copy_(first.weight / std)
        folded.bias.copy_(first.bias - first.weight.sum(1) * mean / std)
    network = Normalised(
        nn.Sequential(nn.Flatten(), first, nn.ReLU(), last).eval(), Normalisation((mean,), (std,))
    )
    same = nn.Sequential(nn.Flatten(), folded, nn.ReLU(), last).eval()
    x = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    y = same(x).argmax(1)
    found, expected = (certified_distance(model, x, y, [2.0]) for model in (network, same))
    assert torch.allclose(found.distance, expected.distance, rtol=1e-4)
    assert (found.distance > 0).any()


def test_parameters_keep_their_names(trained: nn.Module) -> None:
    plain = parameter_indices(trained, ["layers.4.*"])
    normalised = parameter_indices(Normalised(trained, Normalisation((0.1,), (0.5,))), ["layers.4.*"])
    assert list(plain) == list(normalised) == ["layers.4.weight", "layers.4.bias"]
    assert all(torch.equal(plain[name], normalised[name]) for name in plain)


def test_means_that_do_not_fit_the_images(trained: nn.Module, tmp_path: Path) -> None:
    torch.save(trained.state_dict(), tmp_path / "own.pt")
    with pytest.raises(ModelError, match=r"divide mean and std of images up to 255 by 255"):
        Normalisation((33.3,), (78.6,))
    three = ImportOptions(model=NAME, dataset="mnist", normalisation=Normalisation((0.1,) * 3, (0.3,) * 3))
    with pytest.raises(ModelError, match=r"3 means \(--mean\) for images of 1 channels"):
        import_run([tmp_path / "own.pt"], tmp_path / "run", three)
    assert not (tmp_path / "run").exists()
    imported = import_run([tmp_path / "own.pt"], tmp_path / "run", ImportOptions(model=NAME, dataset="mnist"))
    assert any("no --mean and --std were given" in note for note in imported.notes)


def test_another_network_is_told_by_its_names(trained: nn.Module, tmp_path: Path) -> None:
    """Also where buffers, which are no floats, are among what does not fit."""
    torch.save(trained.state_dict(), tmp_path / "own.pt")
    with pytest.raises(ModelError, match=r"do not fit model 'resnet18'.*and \d+ more\. Check --model") as refused:
        import_run([tmp_path / "own.pt"], tmp_path / "run", ImportOptions(model="resnet18"))
    assert len(str(refused.value)) < 800


def test_modules_that_are_not_there() -> None:
    for name, hint in (
        ("no_such:make", "or among what is installed"),
        ("own_networks.py:make", "without its ending"),
    ):
        with pytest.raises(ModelError, match=hint):
            make_model(name, {}, permitted=name)


# ---- Parameters that layers share


def test_shared_parameters_are_stored_once(tmp_path: Path) -> None:
    shared = "own_networks:shared"
    model = make_model(shared, {}, permitted=shared)
    state = model.state_dict()
    assert "3.weight" in state and "3.weight" not in dict(model.named_parameters())
    torch.save(state, tmp_path / "shared.pt")
    imported = import_run([tmp_path / "shared.pt"], tmp_path / "run", ImportOptions(model=shared, dataset="mnist"))
    assert any("3.weight is the same parameter as 1.weight" in note for note in imported.notes)
    snapshot, x = load_snapshot(tmp_path / "run"), torch.rand(2, 1, 28, 28)
    assert "3.weight" not in snapshot.parameters
    rebuilt = load_model(snapshot, Given(model=shared))
    assert torch.equal(rebuilt(x), model(x))
    phi = theta_objective(load_problem(snapshot, "cpu", Given(model=shared)), 5, 0)
    assert phi.origin.shape == (1, sum(p.numel() for p in model.parameters()))
    torch.save(state | {"3.weight": torch.zeros(784, 784)}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match=r"3\.weight and 1\.weight are one parameter"):
        import_run([tmp_path / "other.pt"], tmp_path / "other", ImportOptions(model=shared))


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    from test_interchange import read_here

    monkeypatch.setattr(collecting_module, "read_states", read_here)
