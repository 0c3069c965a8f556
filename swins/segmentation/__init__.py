"""Segmenters on any pyramid: pooled context, heads, their loss, and answers for whole images or window by window."""
