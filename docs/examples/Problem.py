import landscape

snapshot = landscape.load_snapshot("embedded:runs/sgd_lr0.05_b16_seed0")
problem = landscape.load_problem(snapshot)
double = problem.double()  # for mathematics; the problem itself stays in float32
print(next(double.model.parameters()).dtype, double.train.images.dtype)
print(next(problem.model.parameters()).dtype, problem.model.training)
# -> torch.float64 torch.float64
# -> torch.float32 False
