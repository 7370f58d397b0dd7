"""The chat completions of OpenAI's API on top of durable requests: what comes in, and what goes out."""
