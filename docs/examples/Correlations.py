import landscape

rows = landscape.read_rows_csv("figures/findings/rows.csv")
found = landscape.correlate(rows, landscape.CorrelateConfig(permutations=199, bootstrap=99))
link = found.pair("w_theta[ln2]", "w_x_median[ln2]")  # in either order
print(link.x, link.y, len(found.leave_one_out), len(found.p_holm))
print(len(found.verdict) > 100)  # the same in words
# -> w_theta[ln2] w_x_median[ln2] 2 3
# -> True
