import torch

import landscape

phi = landscape.objective(lambda z: z.square().sum(1) / 2, torch.zeros(1, 2, dtype=torch.float64))
found = landscape.level_set_distance(phi, [0.5, 2.0], second_order=False)
print([f"{d:.3f}" for d in found.distance[0]], found.reached.tolist())
print(bool((found.level_error < 1e-6).all()), bool((found.angle < 1e-3).all()), found.num_gradients < 100)
# -> ['1.000', '2.000'] [[True, True]]
# -> True True True
