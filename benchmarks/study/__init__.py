"""The study of the U-Net family: every claim of the family's papers as a measurement."""
