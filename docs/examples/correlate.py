import landscape

rows = landscape.read_rows_csv("figures/findings/rows.csv")
found = landscape.correlate(rows, landscape.CorrelateConfig(permutations=199, bootstrap=99))
print(found.num_rows, len(found.used))
print(found.primary.x, found.primary.y)
print(-1 <= found.primary.within_rho <= 1, 0 < found.primary.p_within <= 1)
# -> 115 102
# -> d_theta[ln2] d_x_median[ln2]
# -> True True
