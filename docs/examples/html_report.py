import landscape

rows = landscape.read_rows_csv("figures/findings/rows.csv")
correlations = landscape.correlate(rows, landscape.CorrelateConfig(permutations=199, bootstrap=99))
page = landscape.html_report(rows, correlations)  # one file without outer resources
print(page[:15], "http://" in page.replace("http://www.w3.org", ""))
# -> <!DOCTYPE html> False
