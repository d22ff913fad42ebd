import torch

import landscape

A = torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64))
phi = landscape.objective(lambda z: (z @ A * z).sum(1) / 2, torch.zeros(1, 2, dtype=torch.float64))
found = landscape.level_set_distance(phi, [2.0])
print(f"{found.distance.item():.3f}")  # the nearest point of {x² / 2 + 2 y² = 2} is (0, 1)
# -> 1.000
