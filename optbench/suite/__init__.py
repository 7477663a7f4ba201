"""The suite file: its schema and checks, its entries, the files it names, and its trials."""
