import landscape
from landscape.robustness.rungs import QUICK, ladder_rungs

snapshot = landscape.load_snapshot("embedded:runs/sgd_lr0.05_b16_seed0")
problem = landscape.load_problem(snapshot)
x, y = problem.test.images[:10], problem.test.labels[:10]
ladder = landscape.run_ladder(problem.model, x, y, [0.1], rungs=ladder_rungs(effort=QUICK))  # default: full effort
audit = landscape.masking_audit(problem.model, x, y, eps=0.1, ladder=ladder)
print(audit.verdict.judgement, len(audit.verdict.reasons) > 0)
# -> sound True
