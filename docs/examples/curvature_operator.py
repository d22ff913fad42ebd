import landscape

snapshot = landscape.load_snapshot("embedded:runs/sgd_lr0.05_b16_seed0")
problem = landscape.load_problem(snapshot)
data = problem.train.subset(100, seed=0)
phi = landscape.parameter_objective(problem.model, data.images, data.labels)
operator = landscape.curvature_operator(phi, "gauss_newton")  # or hessian, fisher, empirical_fisher
pairs = landscape.top_eigenpairs(operator, k=1)
print(bool(pairs.converged.all()), pairs.eigenvalues.item() > 0)
# -> True True
