import torch

import landscape

phi = landscape.objective(lambda z: z.square().sum(1) / 2, torch.zeros(1, 2, dtype=torch.float64))
found = landscape.worst_case_sharpness(phi, [1.0, 2.0])
print([f"{s:.3f}" for s in found.sharpness[0]])  # ρ² / 2
# -> ['0.500', '2.000']
