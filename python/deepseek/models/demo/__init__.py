"""The model of ``deepseek demo``: small, of bytes, with any kind of attention and feed-forward there is."""
