"""Golden files: what a user of obcd has, held as data, so that no refactoring changes it unnoticed."""
