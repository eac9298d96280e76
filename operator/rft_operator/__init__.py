"""The operator: from a ReasoningFinetune resource to a trained, evaluated model within its budget."""
