"""Methods that can be compared, one a file, all behind `model.evaluation.exams.Method`."""
