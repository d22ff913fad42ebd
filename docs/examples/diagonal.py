import torch

import landscape

H = torch.diag(torch.linspace(0, 1, 10, dtype=torch.float64))
phi = landscape.objective(lambda z: (z @ H * z).sum(1) / 2, torch.zeros(1, 10, dtype=torch.float64))
found = landscape.diagonal(phi)
print([f"{x:.1f}" for x in found.value[0]])
# -> ['0.0', '0.1', '0.2', '0.3', '0.4', '0.6', '0.7', '0.8', '0.9', '1.0']
