"""Whether answers, prompts and speed are still what they were when a version was taken up."""
