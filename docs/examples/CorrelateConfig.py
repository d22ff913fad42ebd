import landscape

config = landscape.CorrelateConfig(level="0.5", eps=0.1, permutations=999)
print(config.level, config.eps, config.bootstrap)
# -> 0.5 0.1 2000
