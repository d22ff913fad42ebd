import landscape

# A table such as `landscape measure runs/ --csv rows.csv` writes.
rows = landscape.read_rows_csv("figures/findings/rows.csv")
print(len(rows), {row["status"] for row in rows})
# -> 115 {'ok'}
