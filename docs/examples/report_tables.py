import landscape

rows = landscape.read_rows_csv("figures/findings/rows.csv")
correlations = landscape.correlate(rows, landscape.CorrelateConfig(permutations=199, bootstrap=99))
for table in landscape.report_tables(rows, correlations)[:2]:
    print(table.name, len(table.rows) > 0)
# -> correlations True
# -> partial True
