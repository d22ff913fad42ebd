import landscape

snapshot = landscape.load_snapshot("embedded:runs/sgd_lr0.05_b16_seed0")
problem = landscape.load_problem(snapshot)
data = problem.train.subset(200, seed=0)
phi = landscape.parameter_objective(problem.model, data.images, data.labels)
value, gradient = phi.value_and_grad(phi.origin)
print(tuple(phi.origin.shape), tuple(gradient.shape), value.item() < 0.5)
# -> (1, 18224) (1, 18224) True
