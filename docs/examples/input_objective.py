import landscape

snapshot = landscape.load_snapshot("embedded:runs/sgd_lr0.05_b16_seed0")
problem = landscape.load_problem(snapshot)
data = problem.test.subset(5, seed=0)
phi = landscape.input_objective(problem.model, data.images, data.labels, loss="margin")
print(tuple(phi.origin.shape))  # one row an image
print((phi.value(phi.origin) < 0).tolist())  # a margin of 0 is the decision boundary, below it is right
# -> (5, 784)
# -> [True, True, True, True, True]
