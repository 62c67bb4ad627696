"""What is inside a model, an IR file or an artifact: facts, a graph of its operations, and files made of both."""
