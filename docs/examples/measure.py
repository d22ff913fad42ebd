import landscape

config = landscape.MeasureConfig(
    levels=(0.7,), eps=(0.1,), theta_samples=50, x_samples=4, attack_samples=50, ladder_samples=5
)
row = landscape.measure(landscape.load_snapshot("embedded:runs/sgd_lr0.05_b16_seed0"), config)
print(row["status"], row["d_theta[0.7]"] > 0, row["d_x_median[0.7]"] > 0)
print(row["fgsm_exact[0.1]"] <= row["fgsm_published[0.1]"] + 0.02)
# -> ok True True
# -> True
