"""Diffusion: schedules of noise, samplers, and a U-shaped Swin that knows noise; they know no file and no loop."""
