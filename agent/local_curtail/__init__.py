"""Curtailment that needs no link: decide, order, prove, restore.

envelope -> journal (checked, durable) -> policy.decide (pure) -> executor (staged, proven) -> acks, notices
"""
