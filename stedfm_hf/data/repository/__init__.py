"""What a repository of crops is: its columns, its files, writing and reading them."""
