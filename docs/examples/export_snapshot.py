import tempfile

import torch

import landscape

snapshot = landscape.load_snapshot("embedded:runs/sgd_lr0.05_b16_seed0")
with tempfile.TemporaryDirectory() as folder:
    path = landscape.export_snapshot(snapshot, f"{folder}/weights.pt")  # or .safetensors, .npz, .npy, .h5
    weights = torch.load(path, weights_only=True)
print(all(torch.equal(weights[name], value) for name, value in snapshot.parameters.items()))
# -> True
