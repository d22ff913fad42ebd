import landscape

for at in ("first", "last"):
    snapshot = landscape.load_snapshot("embedded:runs/sgd_lr0.05_b16_seed0", at)
    print(at, snapshot.position.samples_seen, snapshot.metrics.get("clean_accuracy"))
print(len(snapshot.theta_sha256), next(iter(snapshot.parameters)))
# -> first 60000 0.9726
# -> last 360000 0.9886
# -> 64 0.weight
