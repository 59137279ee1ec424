"""See, explain, check and log the gradients of `tf.GradientTape`."""
