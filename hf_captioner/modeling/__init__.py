"""The network: encoder, decoder, generation, tokenizer and confidence; tensors in, tensors out."""
