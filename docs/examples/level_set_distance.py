import landscape

snapshot = landscape.load_snapshot("embedded:runs/sgd_lr0.05_b16_seed0")
problem = landscape.load_problem(snapshot)
data = problem.test.subset(3, seed=0)
phi = landscape.input_objective(problem.model, data.images, data.labels, loss="margin")
found = landscape.level_set_distance(phi, [0.0], box=(0.0, 1.0))  # to the decision boundary, within images
print(tuple(found.distance.shape), bool((found.distance > 0.3).all()))
print(bool((found.level_error < 1e-3).all()), bool((found.angle < 0.35).all()))  # the evidence
# -> (3, 1) True
# -> True True
