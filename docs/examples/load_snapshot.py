import landscape

snapshot = landscape.load_snapshot("embedded:runs/sgd_lr0.05_b16_seed0", at="last")  # or a folder of yours
print(snapshot.model, sum(p.numel() for p in snapshot.parameters.values()))
print(snapshot.position.epoch, snapshot.config["learning_rate"])
# -> cnn 18224
# -> 6 0.05
