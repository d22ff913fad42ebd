import torch

import landscape

phi = landscape.objective(lambda z: (3 * z[:, 0] ** 2 + z[:, 1] ** 2) / 2, torch.zeros(1, 2, dtype=torch.float64))
found = landscape.worst_case_sharpness(phi, [1.0])
print(f"{found.sharpness.item():.3f}", [f"{abs(z):.2f}" for z in found.points[0, 0]])
print(bool(found.misalignment.item() < 0.1), found.num_gradients > 0)
# -> 1.500 ['1.00', '0.00']
# -> True True
