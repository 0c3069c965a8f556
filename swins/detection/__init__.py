"""Detectors on any pyramid: default boxes, what they are trained on, their losses, necks and heads."""
