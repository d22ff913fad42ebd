import landscape

snapshot = landscape.load_snapshot("embedded:runs/sgd_lr0.05_b16_seed0")
problem = landscape.load_problem(snapshot)
x, y = problem.test.images[:2000], problem.test.labels[:2000]
exact = landscape.robust_accuracy(problem.model, x, y, eps=0.3)
published = landscape.robust_accuracy(problem.model, x, y, eps=0.3, loss="cross_entropy_as_published")
print(tuple(exact.correct.shape), exact.accuracy < published.accuracy)
# -> (2000,) True
