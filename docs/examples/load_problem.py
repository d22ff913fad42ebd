import landscape

snapshot = landscape.load_snapshot("embedded:runs/sgd_lr0.05_b16_seed0")
problem = landscape.load_problem(snapshot)
x, y = problem.test.images, problem.test.labels
print(tuple(x.shape), problem.test.name)
print((problem.model(x[:1000]).argmax(1) == y[:1000]).double().mean().item() > 0.9)
# -> (10000, 1, 28, 28) mnist
# -> True
