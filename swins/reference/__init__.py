"""The PyTorch programs that conversions are compared with, alone in a process of their own."""
