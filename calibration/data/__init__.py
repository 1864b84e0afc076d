"""Videos and questions: what is calibrated on, and what is held out."""
