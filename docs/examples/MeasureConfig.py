import landscape

config = landscape.MeasureConfig(levels=(0.5, 1.0), theta_samples=1000, balanced=True)
print(config.x_samples, config.attack_samples, config.eps)
repeat = landscape.MeasureConfig(repeat=1)  # on other data and with other seeds of the searches
print(repeat.search_seed)
# -> 40 2000 (0.1, 0.3)
# -> 1
