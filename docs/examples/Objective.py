import torch

import landscape

phi: landscape.Objective = landscape.objective(lambda z: z.square().sum(1), torch.ones(2, 3))  # one value a row
print(phi.value(phi.origin).tolist())
print(phi.value_and_grad(phi.origin)[1].tolist()[0])
print(phi.linearize(phi.origin)(torch.ones(2, 3)).tolist()[0])  # product with the Hessian
# -> [3.0, 3.0]
# -> [2.0, 2.0, 2.0]
# -> [2.0, 2.0, 2.0]
