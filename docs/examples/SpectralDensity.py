import torch

import landscape

H = torch.diag(torch.linspace(0, 1, 10, dtype=torch.float64))
phi = landscape.objective(lambda z: (z @ H * z).sum(1) / 2, torch.zeros(1, 10, dtype=torch.float64))
density = landscape.spectral_density(phi, steps=10, num_probes=4)
print(density.grid.shape == density.density.shape == density.standard_error.shape)
print(density.num_products, bool((density.density >= 0).all()))
# -> True
# -> 40 True
