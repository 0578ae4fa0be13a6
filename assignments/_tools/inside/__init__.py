"""What runs beside a submission, in its confinement. Nothing here holds an expected value."""
