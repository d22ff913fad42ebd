import landscape

snapshot = landscape.load_snapshot("embedded:runs/sgd_lr0.05_b16_seed0")
problem = landscape.load_problem(snapshot)
x, y = problem.test.images[:500], problem.test.labels[:500]
adversarial = landscape.fgsm(problem.model, x, y, eps=0.1)
print(f"{(adversarial - x).abs().max().item():.2f}")
for images in (x, adversarial):
    print((problem.model(images).argmax(1) == y).double().mean().item() > 0.9)
# -> 0.10
# -> True
# -> False
