import torch

import landscape

H = torch.diag(torch.linspace(0, 1, 10, dtype=torch.float64))
phi = landscape.objective(lambda z: (z @ H * z).sum(1) / 2, torch.zeros(1, 10, dtype=torch.float64))
density = landscape.spectral_density(phi, steps=10)
print(f"{density.nodes.min().item():.2f} {density.nodes.max().item():.2f}")
area = torch.trapezoid(density.density[0], density.grid[0])
print(f"{area.item():.2f}")
# -> -0.00 1.00
# -> 1.00
