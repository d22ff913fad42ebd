import landscape

snapshot = landscape.load_snapshot("embedded:runs/sgd_lr0.05_b16_seed0")
problem = landscape.load_problem(snapshot)
data = problem.train.subset(100, seed=0)
phi = landscape.parameter_objective(problem.model, data.images, data.labels)
pairs = landscape.top_eigenpairs(phi, k=2)
print(bool(pairs.converged.all()), bool((pairs.residuals < 1e-3).all()))
print(bool(pairs.eigenvalues[0, 0] > pairs.eigenvalues[0, 1]))
# -> True True
# -> True
