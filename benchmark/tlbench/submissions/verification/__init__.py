"""What is checked of a submission: a question a file, all of them answered from the stored tables alone."""
