"""What is forbidden: policy files, the schema that reads them, and the questions that follow from them."""
