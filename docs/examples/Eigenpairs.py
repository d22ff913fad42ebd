import torch

import landscape

H = torch.diag(torch.arange(1.0, 51.0, dtype=torch.float64))
phi = landscape.objective(lambda z: (z @ H * z).sum(1) / 2, torch.zeros(1, 50, dtype=torch.float64))
pairs = landscape.top_eigenpairs(phi, k=2)
print([f"{x:.2f}" for x in pairs.eigenvalues[0]], pairs.converged[0].tolist())
print(tuple(pairs.eigenvectors.shape), pairs.num_hvp <= 50)
# -> ['50.00', '49.00'] [True, True]
# -> (1, 2, 50) True
