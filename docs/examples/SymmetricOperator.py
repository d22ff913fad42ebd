import torch

import landscape

A = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
operator = landscape.SymmetricOperator(lambda v: v @ A, torch.zeros(1, 2, dtype=torch.float64))
print([f"{x:.2f}" for x in landscape.top_eigenpairs(operator, k=2).eigenvalues[0]])
print(f"{landscape.trace(operator).value.item():.2f}")
# -> ['3.00', '1.00']
# -> 4.00
