"""Times of steps and of training steps beside torch's and Optax's, and what they are held to."""
