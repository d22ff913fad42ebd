"""One snapshot to one row, the ledger of rows, and the statistics over them."""
