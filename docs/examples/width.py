import torch

import landscape

phi = landscape.objective(lambda z: z.square().sum(1) / 2, torch.zeros(1, 2, dtype=torch.float64))
found = landscape.level_set_distance(phi, [0.5, 2.0])
print([f"{w:.3f}" for w in landscape.width(found)[0]])  # d(c) / (c − φ*): 1 / 0.5 and 2 / 2
# -> ['2.000', '1.000']
