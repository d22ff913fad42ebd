import torch

import landscape

H = torch.diag(torch.linspace(0, 1, 10, dtype=torch.float64))
phi = landscape.objective(lambda z: (z @ H * z).sum(1) / 2, torch.zeros(1, 10, dtype=torch.float64))
found = landscape.block_traces(phi, [5, 5])  # such as the layers of a network
print([f"{x:.2f}" for x in found.value[0]])
# -> ['1.11', '3.89']
