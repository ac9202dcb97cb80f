"""The CIFAR-10 lens: a real classifier seen through a small vision-language model."""
