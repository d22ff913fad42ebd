import landscape
from landscape.robustness.rungs import QUICK, ladder_rungs

snapshot = landscape.load_snapshot("embedded:runs/sgd_lr0.05_b16_seed0")
problem = landscape.load_problem(snapshot)
x, y = problem.test.images[:10], problem.test.labels[:10]
ladder = landscape.run_ladder(problem.model, x, y, [0.1], rungs=ladder_rungs(effort=QUICK))  # default: full effort
print(ladder.names[:3])
print(bool(ladder.worst_accuracy[0] <= ladder.accuracy[:, 0].min()))
# -> ('clean', 'random_noise', 'fgsm_published')
# -> True
