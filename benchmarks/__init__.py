"""Speed, memory and accuracy, measured; each script says what it does and how it is run."""
