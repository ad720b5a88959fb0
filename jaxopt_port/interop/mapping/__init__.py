"""Which leaf of a JAX tree is which tensor of torch's, and in what layout."""
