"""What the models say: media, prompts, classifiers and the pool that runs them; no Kafka, Redis or decisions."""
