import tempfile

import torch
from torch import nn

import landscape

model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
with tempfile.TemporaryDirectory() as folder:
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, f"{folder}/epoch_3.pt")
    imported = landscape.import_run([f"{folder}/epoch_3.pt"], f"{folder}/run")
    print(imported.num_snapshots, landscape.load_snapshot(imported.path).position.epoch)
# -> 1 3
