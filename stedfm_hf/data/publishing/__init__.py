"""What people see of a repository: statistics, figures, preview, card; and sending it to the Hub."""
